"""Fitted merges: the one convolution that best maps a block's input to its output, in closed form.

A convolution is linear in its weights, so the best one over a calibration set solves a least-squares problem. Its
normal equations are accumulated in float64 over sampled patches, once for the largest kernel and for all blocks that
see the same patches; every smaller kernel is a sub-block of the same matrix, and one factor serves all targets. The
ridge term pulls towards a prior (the block's skip, if it has one) and not towards 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trt_layermerge.blocks.lowering import Shift
from trt_layermerge.merging.algebra import Convolution, regroup
from trt_layermerge.merging.columns import SOLVED_BYTES, channels_of, from_columns, some_columns, some_outputs
from trt_layermerge.merging.patches import (
    MOST_KEPT,
    all_positions,
    at,
    beside_shifts,
    formed_part,
    in_parts,
    part_of,
    samples_needed,
    unknowns_of,
    windows,
)
from trt_layermerge.merging.ridge import (
    COLUMNS_AT_ONCE,
    RIDGE,
    Coefficients,
    Dual,
    Primal,
    add_products,
    mirror,
    relative,
)
from trt_layermerge.network.geometry import Geometry


@dataclass(frozen=True)
class Fitted:
    """The solution.

    Attributes:
        convolution: float64.
        unexplained: Mean square of what it misses over the variance of the target: 0 is perfect, 1 is no better than
            a constant; 0 where the target is 0 throughout.
        residual: Of the linear system, relative: how exactly it was solved.
    """

    convolution: Convolution
    unexplained: float
    residual: float


class NormalEquations:
    """Accumulates ``A = sum p p^T`` and ``B = sum p t^T`` over patches ``p`` (with a constant 1) and targets ``t``.

    Args:
        geometry: Of the largest convolution that will be solved for; its ``out_channels`` say nothing.
        blocks: How many blocks share the patches; each has targets of its own.
        shifts: What is added to all results, each through a matrix that is solved for with the weights: a patch ends in
            the shifts of its image, and the 1.

    Attributes:
        finite: Whether everything that was added is.

    Raises:
        ValueError: The geometry is dilated: a fit has no use for gaps between its taps.
    """

    def __init__(self, geometry: Geometry, blocks: int = 1, shifts: Sequence[Shift] = ()) -> None:
        _require_dense(geometry)
        self.geometry, self.shifts = geometry, tuple(shifts)
        size = unknowns_of(geometry) + channels_of(shifts) + 1
        self.gram = torch.zeros(geometry.groups, size, size, dtype=torch.float64)
        self.cross: list[Tensor] = [torch.zeros(())] * blocks  # of its shape from the first batch on
        self.squares = [torch.zeros((), dtype=torch.float64)] * blocks
        self.samples, self.finite = 0, True
        self._solvers: dict[Geometry, Primal] = {}

    def add(
        self,
        inputs: Float[Tensor, "batch in_channels height width"],
        targets: Float[Tensor, "batch _ rows columns"] | Sequence[Float[Tensor, "batch _ rows columns"]],
        positions: Int[Tensor, "samples 3"] | None = None,
        shifts: Sequence[Float[Tensor, "_ _ 1 1"]] = (),
    ) -> None:
        """Add a batch: all output pixels, or those of ``positions`` (image, row, column).

        Args:
            inputs: The blocks' common input.
            targets: What the convolution of each block should make of it.
            positions: Where to take patches.
            shifts: What is added.
        """
        targets = [targets] if isinstance(targets, Tensor) else targets
        positions = all_positions(targets[0]) if positions is None else positions
        view, groups = windows(inputs, self.geometry), self.geometry.groups
        self.gram = self.gram.to(inputs.device)
        for some in in_parts(positions, self.gram.shape[1]):
            patches = _with_ones(beside_shifts(at(view, some, groups), shifts, some))
            add_products(self.gram, patches)
            for index, target in enumerate(targets):
                wanted = at(target, some, groups).double()
                if not self.cross[index].dim():
                    self.cross[index] = wanted.new_zeros(groups, patches.shape[2], wanted.shape[2])
                self.cross[index].baddbmm_(patches.transpose(1, 2), wanted)
                self.squares[index] = self.squares[index].to(wanted) + wanted.square().sum()
        mirror(self.gram)
        self.finite = all(bool(total.isfinite().all()) for total in (self.gram, *self.cross))
        self.samples += len(positions)
        self._solvers.clear()

    def solve(self, geometry: Geometry, prior: Convolution | None = None, of: int = 0) -> Fitted:
        """The best convolution of this geometry: the accumulated kernel's, or a smaller one around its middle.

        Solves ``(A + r I) W = B + r W_prior``, ``r = RIDGE * mean(diag A)``; the bias is in neither and is not drawn
        anywhere.

        Args:
            geometry: Of the solution.
            prior: What it is drawn to; 0 without one.
            of: Which block's targets.

        Raises:
            ValueError: Nothing was accumulated or not all of it is finite, the geometry is no sub-kernel of what was,
                or the prior does not fit in it.
        """
        _require_data(self.samples, self.finite)
        behind = torch.arange(unknowns_of(self.geometry), self.gram.shape[1])  # shifts and the 1
        taken = torch.cat([part_of(geometry, self.geometry), behind]).to(self.gram.device)
        part = replace(geometry, out_channels=geometry.groups)  # blocks that differ in this share a factor
        whole = len(taken) == self.gram.shape[1]  # in the same order: there is no need for copies
        if part not in self._solvers:
            self._solvers[part] = Primal(self.gram if whole else self.gram[:, taken[:, None], taken], RIDGE)
        solver, cross = self._solvers[part], self.cross[of]
        drawn_to = None if prior is None else regroup(prior, geometry.groups)
        explained, gradients = cross.new_zeros(2), cross.new_zeros(2)

        def solutions() -> Iterator[Coefficients]:
            for outputs in some_outputs(geometry, self.shifts):
                wanted = cross[..., outputs] if whole else cross[..., outputs][:, taken]
                begun = some_columns(drawn_to, geometry, outputs, self.shifts).to(cross)
                solution = solver.solve(wanted, begun)
                product = solver.gram @ solution
                explained.add_(torch.stack([(solution * wanted).sum(), (solution * product).sum()]))
                gradients.add_(solver.gradients(product, solution, wanted, begun))
                yield solution
                del wanted, begun, solution, product  # before the next ones are there

        found = from_columns(solutions(), geometry, self.shifts)
        missed = self.squares[of] - 2 * explained[0] + explained[1]
        unexplained = unexplained_share(missed, self.squares[of], cross[:, -1], self.samples)
        return Fitted(found, unexplained, relative(*gradients))


class Patches:
    """For kernels so large that no matrix is formed: some of the patches are kept, fewer than there are unknowns.

    So few patches say little of so many weights. What they say is put on top of what many patches say of the largest
    kernel inside of which a matrix is formed: the large one is drawn to that fit, as strongly as is best for patches
    that it was not solved on.

    Args:
        geometry: As of ``NormalEquations``.
        blocks: As there.
        shifts: As there.

    Raises:
        ValueError: The geometry is dilated.
    """

    def __init__(self, geometry: Geometry, blocks: int = 1, shifts: Sequence[Shift] = ()) -> None:
        _require_dense(geometry)
        self.geometry, self.shifts = geometry, tuple(shifts)
        part = formed_part(geometry)
        self.formed = None if part is None else NormalEquations(part, blocks, shifts)
        self._share = min(1.0, MOST_KEPT / samples_needed(geometry))
        self._patches: list[Tensor] = []
        self._kept_finite = True
        self._targets: list[list[Tensor]] = [[] for _ in range(blocks)]
        self._solvers: dict[Geometry, Dual] = {}

    @property
    def finite(self) -> bool:
        """Whether everything that was added is."""
        return self._kept_finite and (self.formed is None or self.formed.finite)

    def add(
        self,
        inputs: Float[Tensor, "batch in_channels height width"],
        targets: Float[Tensor, "batch _ rows columns"] | Sequence[Float[Tensor, "batch _ rows columns"]],
        positions: Int[Tensor, "samples 3"] | None = None,
        shifts: Sequence[Float[Tensor, "_ _ 1 1"]] = (),
        kept: Bool[Tensor, " samples"] | None = None,
    ) -> None:
        """Add a batch, as ``NormalEquations.add`` does; of the positions, an even share is kept, if not told which."""
        targets = [targets] if isinstance(targets, Tensor) else targets
        positions = all_positions(targets[0]) if positions is None else positions
        if self.formed is not None:
            self.formed.add(inputs, targets, positions, shifts)
        kept = self.evenly(len(positions)) if kept is None else kept
        groups = self.geometry.groups
        patches = at(windows(inputs, self.geometry), positions[kept], groups)
        parts = [beside_shifts(patches, shifts, positions[kept]).contiguous()]
        parts += [at(target, positions[kept], groups) for target in targets]
        for held, part in zip((self._patches, *self._targets), parts, strict=True):
            held.append(part)
        self._kept_finite = self._kept_finite and all(bool(part.isfinite().all()) for part in parts)
        self._solvers.clear()

    def evenly(self, count: int) -> Bool[Tensor, " samples"]:
        """Which of so many positions are kept."""
        kept = torch.zeros(count, dtype=torch.bool)
        kept[torch.linspace(0, count - 1, ceil(self._share * count)).long()] = True
        return kept

    def solve(self, geometry: Geometry, prior: Convolution | None = None, of: int = 0) -> Fitted:
        """The best convolution of this geometry, as of ``NormalEquations.solve``.

        Raises:
            ValueError: As there.
        """
        if self.formed is not None and unknowns_of(geometry) <= unknowns_of(self.formed.geometry):
            return self.formed.solve(geometry, prior, of)
        _require_data(sum(part.shape[1] for part in self._patches), self.finite)
        part = replace(geometry, out_channels=geometry.groups)
        if part not in self._solvers:
            self._solvers[part] = Dual(self._of(geometry))
        solver, targets = self._solvers[part], torch.cat(self._targets[of], 1).double()
        inner, some = self._inner(geometry, prior, of), list(some_outputs(geometry, self.shifts))

        def start(outputs: slice) -> Coefficients:
            return some_columns(inner, geometry, outputs, self.shifts).to(targets)

        missed = torch.cat([solver.missed(targets[..., outputs], start(outputs)) for outputs in some], 2)
        ridge, squares, gradients = solver.best_ridge(missed), targets.new_zeros(()), targets.new_zeros(2)

        def solutions() -> Iterator[Coefficients]:
            for outputs in some:
                wanted, begun = targets[..., outputs], start(outputs)
                solution = solver.solve(missed[..., outputs], begun, ridge)
                left = wanted - solver.predict(solution)
                squares.add_(left.square().sum())
                gradients.add_(solver.gradients(left, solution, wanted, begun, ridge))
                yield solution
                del solution, begun  # before the next ones are there

        found = from_columns(solutions(), geometry, self.shifts)
        unexplained = unexplained_share(squares, targets.square().sum(), targets.sum(1), targets.shape[1])
        return Fitted(found, unexplained, relative(*gradients))

    def _of(self, geometry: Geometry) -> Tensor:
        """The kept patches of a kernel; the largest one's are all there is, in one piece and not twice."""
        self._patches = [_joined(self._patches)]
        (whole,) = self._patches
        behind = torch.arange(unknowns_of(self.geometry), whole.shape[2])  # shifts
        taken = torch.cat([part_of(geometry, self.geometry), behind])
        return whole if len(taken) == whole.shape[2] else whole[..., taken.to(whole.device)]

    def _inner(self, geometry: Geometry, prior: Convolution | None, of: int) -> Convolution | None:
        """What a large kernel is drawn to."""
        if self.formed is None:
            return None if prior is None else regroup(prior, geometry.groups)
        part = replace(self.formed.geometry, out_channels=geometry.out_channels)
        return self.formed.solve(part, admissible_prior(prior, part), of).convolution


Equations = NormalEquations | Patches
"""What fits are solved from: patches, and what several blocks make of them."""


def equations_for(geometry: Geometry, blocks: int = 1, shifts: Sequence[Shift] = ()) -> Equations:
    """Empty equations: a matrix, or patches where it would be larger than ``LARGEST_SYSTEM``."""
    formed = formed_part(geometry) == geometry
    return NormalEquations(geometry, blocks, shifts) if formed else Patches(geometry, blocks, shifts)


def equations_bytes(geometry: Geometry, shifted: int, outputs: Sequence[int]) -> int:
    """Memory of equations that everything was solved from, and of a fit from them.

    Held are a matrix, those of the kernels inside, all their factors, and right sides; or beside them patches, for each
    kernel that is solved from them in a copy, with products and a factor, and targets. A fit takes the solution, and
    what makes a part of it: of a matrix a right side, a prior, a product, and two of what is in hand; of patches what
    these are drawn to, too; or what choosing a ridge takes, before.

    Args:
        geometry: Of the largest kernel.
        shifted: Channels of shifts.
        outputs: Channels of the result of each block.
    """
    part, most, formed, inner = formed_part(geometry), max(outputs, default=0), 0, 0
    if part is not None:
        size = unknowns_of(part) + shifted + 1
        matrices = part.groups * size * 8 // 3  # of kernels 1, 3, 5, 7: all are 1.3 times the largest
        formed, inner = 8 * size * (matrices + sum(outputs)), 8 * size * most
    fit = inner + 5 * min(inner, SOLVED_BYTES)
    if part == geometry:
        return formed + fit
    inside = {geometry.middle(size) for size in range(1, max(geometry.kernel), 2)} - {None}
    sizes = {unknowns_of(one) for one in (geometry, *inside) if one is not None}
    kept = [size + shifted for size in sizes if part is None or size > unknowns_of(part)]
    products = 8 * geometry.groups * MOST_KEPT**2
    held = 4 * MOST_KEPT * (geometry.groups * sum(kept) + sum(outputs)) + 2 * products * len(kept)
    targets = 16 * MOST_KEPT * most  # in float64, and what is missed of them
    solving = 8 * max(kept) * most + 3 * SOLVED_BYTES + 16 * geometry.groups * MOST_KEPT * COLUMNS_AT_ONCE
    return formed + held + max(fit, targets + inner + solving, targets + 2 * products)


def admissible_prior(prior: Convolution | None, geometry: Geometry) -> Convolution | None:
    """A prior, if a solution of this geometry has room for it."""
    if prior is None:
        return None
    try:
        both = prior.geometry.beside(geometry)
    except ValueError:
        return None
    return prior if (both.kernel, both.groups) == (geometry.kernel, geometry.groups) else None


def _require_dense(geometry: Geometry) -> None:
    if geometry.dilation != (1, 1):
        raise ValueError(f"{geometry} is dilated")


def _require_data(samples: int, finite: bool) -> None:
    if not samples:
        raise ValueError("no samples were accumulated")
    if not finite:
        raise ValueError("the samples are not finite")


def _joined(parts: list[Tensor]) -> Tensor:
    """Patches in one piece; each part is let go once it is copied, for all of them are large."""
    if len(parts) == 1:
        return parts[0]
    groups, _, unknowns = parts[0].shape
    whole, first = parts[0].new_empty(groups, sum(part.shape[1] for part in parts), unknowns), 0
    while parts:
        part = parts.pop(0)
        whole[:, first : first + part.shape[1]] = part
        first += part.shape[1]
    return whole


def _with_ones(patches: Tensor) -> Tensor:
    """Patches in float64, with a constant 1 at their end; converted into their place, for they are large."""
    groups, samples, unknowns = patches.shape
    result = patches.new_ones(groups, samples, unknowns + 1, dtype=torch.float64)
    result[..., :-1] = patches
    return result


def unexplained_share(missed: Tensor, squares: Tensor, sums: Tensor, samples: int) -> float:
    """What is missed, as a share of the target's variance."""
    variance = squares - samples * (sums / samples).square().sum()
    # What is left of a constant target's squares is rounding.
    variance = torch.maximum(variance, torch.finfo(variance.dtype).eps * squares)
    return float(missed.clamp_min(0) / variance) if variance > 0 else 0.0
