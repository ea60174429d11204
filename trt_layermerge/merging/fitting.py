"""Fitted merges: the one convolution that best maps a block's input to its output, in closed form.

A convolution is linear in its weights, so the best one over a calibration set solves a least-squares problem. Its
normal equations are accumulated in float64 over sampled patches, once for the largest kernel; every smaller kernel is a
sub-block of the same matrix. The ridge term pulls towards a prior (the block's skip, if it has one) and not towards 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.errors import TaskError
from trt_layermerge.merging.algebra import Convolution, embed
from trt_layermerge.network.geometry import Geometry

RIDGE = 1e-4
"""Ridge term, in mean squares of a patch's entries."""

SAMPLES_PER_UNKNOWN = 10
"""Patches for each unknown of an output channel: enough that what is fitted is not the noise."""

FEWEST_SAMPLES, MOST_SAMPLES = 4096, 65536

AT_ONCE = 4096
"""Patches unfolded at a time, which bounds the memory that it takes."""


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


def samples_needed(geometry: Geometry) -> int:
    """How many patches a fit of this geometry should see."""
    unknowns = geometry.in_channels // geometry.groups * geometry.kernel[0] * geometry.kernel[1] + 1
    return max(FEWEST_SAMPLES, min(MOST_SAMPLES, SAMPLES_PER_UNKNOWN * unknowns))


def samples_by_batch(geometry: Geometry, batches: Sequence[Tensor]) -> list[int]:
    """How many patches a fit should take from each batch ``[images, ...]``: in proportion to its images.

    Raises:
        TaskError: There are no images.
    """
    images = sum(len(batch) for batch in batches)
    if not images:
        raise TaskError(
            "there is no calibration data to fit on", hint="give the task calibration data; a few hundred images do"
        )
    return [-(-samples_needed(geometry) * len(batch) // images) for batch in batches]


class NormalEquations:
    """Accumulates ``A = sum p p^T`` and ``B = sum p t^T`` over patches ``p`` (with a constant 1) and targets ``t``.

    Args:
        geometry: Of the largest convolution that will be solved for.

    Raises:
        ValueError: The geometry is dilated: a fit has no use for gaps between its taps.
    """

    def __init__(self, geometry: Geometry) -> None:
        if geometry.dilation != (1, 1):
            raise ValueError(f"{geometry} is dilated")
        groups = geometry.groups
        unknowns = geometry.in_channels // groups * geometry.kernel[0] * geometry.kernel[1] + 1
        self.geometry = geometry
        self.gram = torch.zeros(groups, unknowns, unknowns, dtype=torch.float64)
        self.cross = torch.zeros(groups, unknowns, geometry.out_channels // groups, dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)
        self.samples = 0

    def add(
        self,
        inputs: Float[Tensor, "batch in_channels height width"],
        targets: Float[Tensor, "batch out rows columns"],
        positions: Int[Tensor, "samples 3"] | None = None,
    ) -> None:
        """Add a batch: all output pixels, or those of ``positions`` (image, row, column)."""
        if positions is None:
            positions = _all_positions(targets)
        windows = self._windows(inputs)
        for some in torch.split(positions, AT_ONCE):
            patches, wanted = self._grouped(windows, some), self._grouped(targets, some)
            patches = torch.cat([patches, patches.new_ones(*patches.shape[:2], 1)], 2)
            self.gram.baddbmm_(patches.transpose(1, 2), patches)
            self.cross.baddbmm_(patches.transpose(1, 2), wanted)
            self.squares += wanted.square().sum()
        self.samples += len(positions)

    @property
    def finite(self) -> bool:
        """Whether everything that was added is."""
        return bool(self.gram.isfinite().all() and self.cross.isfinite().all())

    def solve(self, geometry: Geometry, prior: Convolution | None = None) -> Fitted:
        """The best convolution of this geometry: the accumulated kernel's, or a smaller one around its middle.

        Solves ``(A + r I) W = B + r W_prior``, ``r = RIDGE * mean(diag A)``; the bias is in neither and is not drawn
        anywhere.

        Raises:
            ValueError: Nothing was accumulated or not all of it is finite, the geometry is no sub-kernel of what was,
                or the prior does not fit in it.
        """
        if not self.samples:
            raise ValueError("no samples were accumulated")
        if not self.finite:
            raise ValueError("the samples are not finite")
        taken = self._sub_kernel(geometry)
        gram, cross = self.gram[:, taken][:, :, taken], self.cross[:, taken]
        ridge = _ridge(gram)
        start = torch.zeros_like(cross) if prior is None else _as_columns(prior, geometry)
        system = gram + torch.diag_embed(ridge)
        right = cross + ridge[..., None] * start
        solution = _solve(system, right)
        residual = float((system @ solution - right).norm() / right.norm().clamp_min(torch.finfo(right.dtype).tiny))
        return Fitted(_from_columns(solution, geometry), self._unexplained(gram, cross, solution), residual)

    def _windows(self, inputs: Tensor) -> Float[Tensor, "batch in_channels rows columns height width"]:
        top, left, bottom, right = self.geometry.padding
        (kh, kw), (sh, sw) = self.geometry.kernel, self.geometry.stride
        return F.pad(inputs, (left, right, top, bottom)).unfold(2, kh, sh).unfold(3, kw, sw)

    def _grouped(self, values: Tensor, positions: Tensor) -> Float[Tensor, "groups samples per_group"]:
        """What ``values``, ``[batch, channels, rows, columns, ...]``, hold at some positions, float64."""
        image, row, column = positions.unbind(1)
        taken = values[image, :, row, column].double()
        groups, width = self.geometry.groups, taken.shape[1:].numel() // self.geometry.groups
        return taken.reshape(len(taken), groups, width).transpose(0, 1)

    def _sub_kernel(self, geometry: Geometry) -> Tensor:
        """Indices of the unknowns of a smaller kernel."""
        full = self.geometry
        top, left = full.padding[0] - geometry.padding[0], full.padding[1] - geometry.padding[1]
        same = replace(geometry, kernel=full.kernel, padding=full.padding) == full
        fits = 0 <= top <= full.kernel[0] - geometry.kernel[0] and 0 <= left <= full.kernel[1] - geometry.kernel[1]
        if not same or not fits:
            raise ValueError(f"{geometry} is no part of {full}")
        grid = torch.arange(self.gram.shape[1] - 1).reshape(-1, *full.kernel)
        inside = grid[:, top : top + geometry.kernel[0], left : left + geometry.kernel[1]]
        return torch.cat([inside.reshape(-1), torch.tensor([self.gram.shape[1] - 1])])

    def _unexplained(self, gram: Tensor, cross: Tensor, solution: Tensor) -> float:
        missed = self.squares - 2 * (solution * cross).sum() + (solution * (gram @ solution)).sum()
        mean = cross[:, -1] / self.samples  # the row of the constant: sums of the targets
        variance = self.squares - self.samples * mean.square().sum()
        # What is left of a constant target's squares is rounding.
        variance = torch.maximum(variance, torch.finfo(variance.dtype).eps * self.squares)
        return float(missed.clamp_min(0) / variance) if variance > 0 else 0.0


def sample_positions(
    shape: torch.Size | tuple[int, ...], count: int, generator: torch.Generator
) -> Int[Tensor, "samples 3"]:
    """Random output pixels (image, row, column) of a target ``[batch, out, rows, columns]``, all if there are fewer."""
    batch, _, rows, columns = shape
    total = batch * rows * columns
    flat = torch.randperm(total, generator=generator)[:count].sort().values
    return torch.stack([flat // (rows * columns), flat // columns % rows, flat % columns], 1)


def _all_positions(targets: Tensor) -> Tensor:
    return sample_positions(targets.shape, targets.numel(), torch.Generator().manual_seed(0))


def _ridge(gram: Tensor) -> Float[Tensor, "groups unknowns"]:
    diagonal = gram.diagonal(dim1=1, dim2=2)[:, :-1]
    ridge = (RIDGE * diagonal.mean(1, keepdim=True)).clamp_min(torch.finfo(gram.dtype).tiny)
    return torch.cat([ridge.expand_as(diagonal), torch.zeros_like(ridge)], 1)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(system)
    if not failed.any():
        return torch.cholesky_solve(right, factor)
    least: Tensor = torch.linalg.lstsq(system, right, driver="gelsd").solution  # the ridge was lost in rounding
    return least


def _as_columns(convolution: Convolution, geometry: Geometry) -> Float[Tensor, "groups unknowns out_per_group"]:
    weight = embed(convolution, geometry).double()
    per_group = geometry.out_channels // geometry.groups
    columns = weight.reshape(geometry.groups, per_group, -1).transpose(1, 2)
    bias = convolution.bias.double().reshape(geometry.groups, 1, per_group)
    return torch.cat([columns, bias], 1)


def _from_columns(solution: Tensor, geometry: Geometry) -> Convolution:
    weight = (
        solution[:, :-1]
        .transpose(1, 2)
        .reshape(geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.kernel)
    )
    return Convolution(geometry, weight.contiguous(), solution[:, -1].reshape(-1).contiguous())
