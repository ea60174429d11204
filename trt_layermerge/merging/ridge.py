"""Ridge regression with a bias that no penalty is on, factored once for any number of targets.

Leaving the bias alone is the same as centring the data before the ridge is applied. The penalty is on the distance from
a prior: of many solutions that fit alike, the one nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

RIDGE = 1e-4
"""Ridge term, in mean squares of a patch's entries."""

WIDE_RIDGES = (1e-4, 1e-2, 1.0, 1e2)
"""What the ridge is chosen from where patches are fewer than unknowns: from hardly any to little but the prior."""

VALIDATED = 5
"""One in so many patches is evaluated on where a ridge is chosen."""

LEAST_RIDGE = 1e-30
"""Ridge where patches are all zeros: dividing by it gives large numbers, not infinite ones."""

COLUMNS_AT_ONCE = 2048
"""Columns of patches that are converted to float64 at a time."""

TILE = 512
"""Unknowns on a side of the tiles in which a symmetric product is made: half of it is enough."""

Coefficients = Float[Tensor, "groups unknowns_and_bias out_per_group"]
Targets = Float[Tensor, "groups samples out_per_group"]


def add_products(gram: Float[Tensor, "groups unknowns unknowns"], patches: Float[Tensor, "groups _ unknowns"]) -> None:
    """Add ``P^T P`` to a matrix, only on and above the diagonal tiles; ``mirror`` does the rest when all are in."""
    for first in range(0, gram.shape[1], TILE):
        rows = patches[..., first : first + TILE].transpose(1, 2)
        gram[:, first : first + TILE, first:].baddbmm_(rows, patches[..., first:])


def mirror(gram: Float[Tensor, "groups unknowns unknowns"]) -> None:
    """Copy what is above the diagonal tiles of a symmetric matrix to below them."""
    for first in range(0, gram.shape[1], TILE):
        last = first + TILE
        gram[:, last:, first:last] = gram[:, first:last, last:].transpose(1, 2)


def factored(system: Float[Tensor, "groups unknowns unknowns"]) -> tuple[Tensor, bool]:
    """The lower Cholesky factor of a symmetric system, and whether there is one; on a CPU in its memory."""
    if system.device.type != "cpu":
        factor, failed = torch.linalg.cholesky_ex(system)
        return factor, not failed.any()
    factor = system.mT  # its columns lie as LAPACK wants them, or there would be a copy
    failed = torch.empty(len(system), dtype=torch.int32)
    torch.linalg.cholesky_ex(factor, out=(factor, failed))
    return factor, not failed.any()


def solve_factored(factor: Float[Tensor, "groups unknowns unknowns"], right: Tensor) -> Tensor:
    """The solution of the system of a Cholesky factor, in the memory of the right side where its columns lie apart.

    As ``torch.cholesky_solve``, which copies the factor.
    """
    solution = right.mT.contiguous().mT
    torch.linalg.solve_triangular(factor, solution, upper=False, out=solution)
    torch.linalg.solve_triangular(factor.mT, solution, upper=True, out=solution)
    return solution


class Primal:
    """``(A + r I) W = B + r W_prior`` with ``A = P^T P`` and ``B = P^T T``: as many equations as unknowns.

    Args:
        gram: A, of patches with a constant 1 at their end, float64.
        ridge: r, in means of A's diagonal; the bias has none.
    """

    def __init__(self, gram: Float[Tensor, "groups unknowns unknowns"], ridge: float) -> None:
        diagonal = gram.diagonal(dim1=1, dim2=2)[:, :-1]
        weight = (ridge * diagonal.mean(1, keepdim=True)).clamp_min(torch.finfo(gram.dtype).tiny)
        self.ridge = torch.cat([weight.expand_as(diagonal), torch.zeros_like(weight)], 1)
        self.gram = gram
        self.factor, self.sound = factored(self.system)

    @property
    def system(self) -> Float[Tensor, "groups unknowns unknowns"]:
        """``A + r I``, in memory of its own."""
        system = self.gram.clone()
        system.diagonal(dim1=1, dim2=2).add_(self.ridge)
        return system

    def solve(self, cross: Coefficients, prior: Coefficients) -> Coefficients:
        """W for B and a prior."""
        right = self._right(cross, prior)
        if self.sound:
            return solve_factored(self.factor, right)
        # The ridge was lost in rounding. On a GPU torch has no driver for systems without full rank.
        least: Tensor = torch.linalg.lstsq(self.system.cpu(), right.cpu(), driver="gelsd").solution
        return least.to(right.device)

    def residual(self, solution: Coefficients, cross: Coefficients, prior: Coefficients) -> float:
        """Of the system, relative to its right side: how exactly it was solved."""
        return relative(*self.gradients(self.gram @ solution, solution, cross, prior))

    def gradients(
        self, product: Coefficients, solution: Coefficients, cross: Coefficients, prior: Coefficients
    ) -> Float[Tensor, " 2"]:
        """Sums of squares of what a solution misses of the right side, and of that; ``product`` is A W, and used up."""
        product.addcmul_(self.ridge[..., None], solution)
        right = self._right(cross, prior)
        product -= right
        return torch.stack([product.square_().sum(), right.square_().sum()])

    def _right(self, cross: Coefficients, prior: Coefficients) -> Coefficients:
        """``B + r W_prior``, in memory of its own, with columns as LAPACK wants them."""
        groups, unknowns, outputs = prior.shape
        right = prior.new_empty(groups, outputs, unknowns).mT
        return torch.mul(self.ridge[..., None], prior, out=right).add_(cross)


class Dual:
    """The same solution from as many equations as there are samples: for more unknowns than a matrix may have.

    ``W = W_prior + P^T (P P^T + r I)^-1 T`` of centred patches P; T is what the prior misses of the targets, centred.
    With fewer samples than unknowns nearly any targets can be met, and what is met says nothing of other samples: which
    ridge is right has to be found out.

    Args:
        patches: Without a constant; of any precision, all sums are float64.
    """

    def __init__(self, patches: Float[Tensor, "groups samples unknowns"]) -> None:
        self.patches = patches
        means = [patches[..., columns].mean(1, keepdim=True, dtype=torch.float64) for columns in self._parts()]
        self.middle = torch.cat(means, 2)  # converted as a whole, the patches would take twice as much again
        groups, samples, unknowns = patches.shape
        self.products = torch.zeros(groups, samples, samples, dtype=torch.float64, device=patches.device)
        squares = torch.zeros(groups, dtype=torch.float64, device=patches.device)
        for columns in self._parts():
            part = patches[..., columns].double()
            squares += part.square().sum((1, 2))
            part = part - self.middle[..., columns]
            self.products.baddbmm_(part, part.transpose(1, 2))
        self.scale = squares / unknowns
        """What ridges are told in: means of the diagonal of ``P^T P`` before centring, as above."""
        self._factored: tuple[float, Tensor] | None = None

    def missed(self, targets: Targets, prior: Coefficients) -> Targets:
        """What a prior without its bias leaves of the targets, float64: what is solved for."""
        return targets.double() - self._made(prior[:, :-1], torch.zeros_like(prior[:, -1:]))

    def best_ridge(self, missed: Targets) -> float:
        """Of ``WIDE_RIDGES``, the one that is best on the last samples when only the first ones are solved on."""
        samples = missed.shape[1]
        count = samples - samples // VALIDATED
        if count == samples:
            return max(WIDE_RIDGES)  # too few samples to tell: the prior is all there is
        among, onto = self.products[:, :count, :count], self.products[:, count:, :count]
        means = among.mean(1, keepdim=True)
        offset = missed[:, :count].mean(1, keepdim=True)

        def left(ridge: float) -> float:
            centred = among - means - means.transpose(1, 2) + means.mean(2, keepdim=True)
            factor = self._factor(centred, ridge * count / samples * self.scale)
            shares = solve_factored(factor, missed[:, :count] - offset)
            # The shares add up to 0, so that of centring the rows nothing is left.
            return float((missed[:, count:] - offset - (onto - means) @ shares).square().sum())

        return min(WIDE_RIDGES, key=left)

    def solve(self, missed: Targets, prior: Coefficients, ridge: float) -> Coefficients:
        """W for what the prior misses of targets, and a ridge."""
        offset = missed.mean(1, keepdim=True)
        if self._factored is None or self._factored[0] != ridge:
            self._factored = ridge, self._factor(self.products.clone(), ridge * self.scale)
        shares, solution = solve_factored(self._factored[1], missed - offset), torch.empty_like(prior)
        weights = solution[:, :-1]  # written into their place: each of these is as large as all weights
        for columns, step in self._gathered(shares):
            weights[:, columns] = step
        solution[:, -1:] = offset - self.middle @ weights
        weights += prior[:, :-1]
        return solution

    def predict(self, solution: Coefficients) -> Targets:
        """What a convolution makes of the patches."""
        return self._made(solution[:, :-1], solution[:, -1:])

    def residual(self, solution: Coefficients, targets: Targets, prior: Coefficients, ridge: float) -> float:
        """The gradient at a solution, relative to that where nothing is explained: how exactly it was solved."""
        return relative(*self.gradients(targets.double() - self.predict(solution), solution, targets, prior, ridge))

    def gradients(
        self, left: Targets, solution: Coefficients, targets: Targets, prior: Coefficients, ridge: float
    ) -> Float[Tensor, " 2"]:
        """Sums of squares of the gradient at a solution, which leaves so much of the targets, and at their means."""
        weight, targets = _at_least(ridge * self.scale)[:, None, None], targets.double()
        both = torch.cat([left, targets - targets.mean(1, keepdim=True)], 2)
        squares = left.new_zeros(2)
        for columns, found in self._gathered(both):
            here, begun = found.chunk(2, 2)
            distance = solution[:, :-1][:, columns] - prior[:, :-1][:, columns]
            squares += torch.stack([(here - weight * distance).square().sum(), begun.square().sum()])
        return squares

    @staticmethod
    def _factor(products: Tensor, ridge: Float[Tensor, " groups"]) -> Tensor:
        """Of the system; the products are overwritten."""
        products.diagonal(dim1=1, dim2=2).add_(_at_least(ridge)[:, None])
        factor: Tensor = torch.linalg.cholesky(products)
        return factor

    def _made(self, weights: Tensor, bias: Tensor) -> Targets:
        for columns in self._parts():
            bias = bias + self.patches[..., columns].double() @ weights[:, columns]
        return bias

    def _gathered(self, values: Targets) -> Iterator[tuple[slice, Tensor]]:
        """Centred ``P^T`` times values, some of its rows at a time."""
        for columns in self._parts():
            yield columns, (self.patches[..., columns].double() - self.middle[..., columns]).transpose(1, 2) @ values

    def _parts(self) -> Iterator[slice]:
        for first in range(0, self.patches.shape[2], COLUMNS_AT_ONCE):
            yield slice(first, first + COLUMNS_AT_ONCE)


def relative(gradient: Tensor, begun: Tensor) -> float:
    """How exactly a system was solved, from the two sums of squares of :meth:`Dual.gradients`."""
    return float((gradient / begun.clamp_min(torch.finfo(begun.dtype).tiny)).sqrt())


def _at_least(ridge: Tensor) -> Tensor:
    return ridge.clamp_min(LEAST_RIDGE)
