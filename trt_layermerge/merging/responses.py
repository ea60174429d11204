"""Fitting what comes out behind the activation, from patches that are kept in memory.

An activation that clips, such as ReLU, hides most of what a fit misses below zero: what counts is the distance of
``s(W p)`` to ``s(t)``. It is brought down by turns of two steps, both solved exactly (Zhang, Zou, He, Sun, Accelerating
Very Deep Convolutional Networks, arXiv 1505.06798, section 2.2): the best intermediate response z given W, element by
element, and the best W given z, which is another target for the same factored system.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from trt_layermerge.blocks.lowering import Shift
from trt_layermerge.merging.algebra import Convolution
from trt_layermerge.merging.columns import from_columns, prior_columns
from trt_layermerge.merging.fitting import Fitted, unexplained_share
from trt_layermerge.merging.patches import AT_ONCE, formed_part
from trt_layermerge.merging.ridge import RIDGE, VALIDATED, Coefficients, Dual, Primal, add_products, mirror
from trt_layermerge.network.geometry import Geometry

CLIPPED = {"relu": (0.0, inf), "relu6": (0.0, 6.0)}
"""Between which values an activation passes its input on."""

ROUNDS, GAIN = 25, 1e-3
"""Most turns of the two steps, and the share of the distance that a turn must take away for another one to follow."""

TRUST = 0.3
"""What the distance of z from ``W p`` counts, against the distance of the responses."""

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2)
"""What the ridge is chosen from, on patches that the weights were not solved on."""

Rows = Float[Tensor, "groups samples out_per_group"]


@dataclass(frozen=True)
class Responses:
    """Patches of a block's input, and what the original has at the same pixels.

    Attributes:
        patches: With a constant 1 at their end, in the order of the images.
        wanted: The original's sum before its activation.
        added: What skips add to the convolution's result.
        shifts: Whose values stand in the patches, before the 1.
    """

    patches: Float[Tensor, "groups samples unknowns"]
    wanted: Rows
    added: Rows
    shifts: tuple[Shift, ...] = ()

    def split(self) -> tuple[Responses, Responses]:
        """The first patches to solve on, and the last ones to evaluate on."""
        count = self.patches.shape[1] - self.patches.shape[1] // VALIDATED
        ends = slice(None, count), slice(count, None)
        first, last = (
            replace(self, patches=self.patches[:, end], wanted=self.wanted[:, end], added=self.added[:, end])
            for end in ends
        )
        return first, last


def fit_responses(
    responses: Responses,
    geometry: Geometry,
    prior: Convolution | None = None,
    clip: tuple[float, float] | None = None,
    choose_ridge: bool = True,
    *,
    linear: bool = False,
) -> Fitted:
    """The convolution of a geometry that best makes the wanted responses.

    Args:
        responses: What to fit.
        geometry: Of the convolution; the patches are those of its kernel.
        prior: What it is drawn to.
        clip: The range of the activation behind it; ``None`` fits the sum before the activation.
        choose_ridge: Choose the ridge on patches that are not solved on, instead of taking ``RIDGE``. For kernels
            with more unknowns than there are patches it is always chosen.
        linear: The original has no such activation: what comes out of it, and the skips then added, is to be near the
            wanted sum itself.
    """
    start = prior_columns(prior, geometry, responses.shifts).to(responses.patches.device)
    formed = formed_part(geometry) == geometry
    solver = _Formed(responses, start, choose_ridge) if formed else _Kept(responses, start)
    targets = responses.wanted.double() - responses.added
    solution = solver.solve(targets, start)
    if clip is not None:
        alone = replace(responses, wanted=targets, added=torch.zeros_like(targets))
        sums = alone if linear else _clamped(responses, clip)
        solution = _through(sums, solver, solution, start, clip)
    missed = targets - predicted(responses.patches, solution)
    unexplained = unexplained_share(
        missed.square().sum(), targets.square().sum(), targets.sum(1), responses.patches.shape[1]
    )
    return Fitted(from_columns([solution], geometry, responses.shifts), unexplained, solver.residual)


class _Formed:
    """One matrix and all targets for it, with how exactly the last one was solved."""

    def __init__(self, responses: Responses, prior: Coefficients, choose_ridge: bool) -> None:
        self.patches, self.residual = responses.patches, 0.0
        solved, evaluated = responses.split()
        seen, held = _gram(solved.patches), _gram(evaluated.patches)
        ridge = _best_ridge(seen, solved, evaluated, prior) if choose_ridge else RIDGE
        self.system = Primal(seen.add_(held), ridge)

    def solve(self, targets: Rows, prior: Coefficients) -> Coefficients:
        cross = _cross(self.patches, targets)
        solution = self.system.solve(cross, prior)
        self.residual = self.system.residual(solution, cross, prior)
        return solution


class _Kept:
    """The same from the patches themselves; without a ridge that is chosen they could be met by anything."""

    def __init__(self, responses: Responses, prior: Coefficients) -> None:
        self.system, self.residual = Dual(responses.patches[..., :-1]), 0.0
        self.ridge = self.system.best_ridge(self.system.missed(responses.wanted.double() - responses.added, prior))

    def solve(self, targets: Rows, prior: Coefficients) -> Coefficients:
        solution = self.system.solve(self.system.missed(targets, prior), prior, self.ridge)
        self.residual = self.system.residual(solution, targets, prior, self.ridge)
        return solution


def _best_ridge(gram: Tensor, solved: Responses, evaluated: Responses, prior: Coefficients) -> float:
    cross = _cross(solved.patches, solved.wanted.double() - solved.added)

    def missed(ridge: float) -> float:
        answer = predicted(evaluated.patches, Primal(gram, ridge).solve(cross, prior))
        return float((evaluated.wanted - evaluated.added - answer).square().sum())

    return min(RIDGES, key=missed)


def _through(
    responses: Responses,
    solver: _Formed | _Kept,
    solution: Coefficients,
    prior: Coefficients,
    clip: tuple[float, float],
) -> Coefficients:
    """The weights after the turns, or those of the plain fit where these are no worse."""
    low, high = clip
    wanted, added = responses.wanted.double(), responses.added.double()

    def missed(sums: Tensor) -> float:
        return float((sums.clamp(low, high) - wanted).square().sum())

    sums = predicted(responses.patches, solution) + added
    best, least = solution, missed(sums)
    for _ in range(ROUNDS):
        solution = solver.solve(_intermediate(sums, wanted, low, high) - added, prior)
        sums = predicted(responses.patches, solution) + added
        distance, before = missed(sums), least
        if distance < least:
            best, least = solution, distance
        if distance > (1 - GAIN) * before:
            break
    return best


def _clamped(responses: Responses, clip: tuple[float, float]) -> Responses:
    """The same with what the original makes of its sums."""
    return replace(responses, wanted=responses.wanted.clamp(*clip))


def _intermediate(sums: Tensor, wanted: Tensor, low: float, high: float) -> Tensor:
    """The z of least ``(s(z) - wanted)^2 + TRUST (z - sums)^2``, be it below, inside or above the range."""
    best = ((wanted + TRUST * sums) / (1 + TRUST)).clamp(low, high)
    least = (best - wanted).square() + TRUST * (best - sums).square()
    for bound, z in ((low, sums.clamp(max=low)), (high, sums.clamp(min=high))):
        if bound < inf:
            cost = (wanted - bound).square() + TRUST * (z - sums).square()
            best, least = torch.where(cost < least, z, best), torch.minimum(cost, least)
    return best


def predicted(patches: Tensor, solution: Coefficients) -> Rows:
    """What a convolution makes of patches, float64."""
    return torch.cat([part.double() @ solution for part in torch.split(patches, AT_ONCE, 1)], 1)


def _gram(patches: Tensor) -> Float[Tensor, "groups unknowns unknowns"]:
    """``P^T P`` in float64, some rows at a time."""
    groups, _, unknowns = patches.shape
    total = torch.zeros(groups, unknowns, unknowns, dtype=torch.float64, device=patches.device)
    for part in torch.split(patches, AT_ONCE, 1):
        add_products(total, part.double())
    mirror(total)
    return total


def _cross(patches: Tensor, targets: Tensor) -> Float[Tensor, "groups unknowns columns"]:
    """``P^T T`` in float64, some rows at a time."""
    total = torch.zeros(len(patches), patches.shape[2], targets.shape[2], dtype=torch.float64, device=patches.device)
    for part, wanted in zip(torch.split(patches, AT_ONCE, 1), torch.split(targets, AT_ONCE, 1), strict=True):
        total.baddbmm_(part.double().transpose(1, 2), wanted.double())
    return total
