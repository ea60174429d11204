"""What a fit is made from: patches of a block's input, sampled at output pixels, and how many of them it takes.

A patch is a row of the least-squares problem: the input entries under the kernel at one output pixel, group by group,
in the order of the weights. Shifts, which are the same at all pixels of an image, are entries more of each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.errors import TaskError
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.inputs import Values, samples_in

SAMPLES_PER_UNKNOWN = 10
"""Patches for each unknown of an output channel: enough that what is fitted is not the noise."""

FEWEST_SAMPLES, MOST_SAMPLES = 4096, 65536

LARGEST_SYSTEM = 8192
"""Most unknowns of a system that is formed as a matrix, 512 MiB; beyond it, the patches themselves are kept."""

MOST_KEPT = 4096
"""Patches that are kept beyond ``LARGEST_SYSTEM``: they are then the unknowns of the system that is solved."""

KEPT_PER_UNKNOWN, KEPT_BYTES = 40, 512 << 20
"""Patches for each unknown where they are kept in memory, and the most memory that they may take, as float32."""

AT_ONCE, UNFOLDED_BYTES = 4096, 128 << 20
"""Most patches that are unfolded at a time, and what they may take, in float32 and float64 beside each other."""


def unknowns_of(geometry: Geometry) -> int:
    """Weights of one output channel, without its bias."""
    return geometry.in_channels // geometry.groups * geometry.kernel[0] * geometry.kernel[1]


def formed_part(geometry: Geometry) -> Geometry | None:
    """The kernel of which a matrix is formed: the whole one, or the largest odd middle that is small enough.

    ``None`` where a single tap has too many unknowns already, or no padding lets the outer ones go.
    """
    if unknowns_of(geometry) <= LARGEST_SYSTEM:
        return geometry
    parts = (geometry.middle(size) for size in reversed(range(1, max(geometry.kernel), 2)))
    return next((part for part in parts if part and unknowns_of(part) <= LARGEST_SYSTEM), None)


def samples_needed(geometry: Geometry) -> int:
    """How many patches a fit of this geometry should see; those that are kept are some of them."""
    part = formed_part(geometry)
    if part is None:
        return MOST_KEPT
    return max(FEWEST_SAMPLES, min(MOST_SAMPLES, SAMPLES_PER_UNKNOWN * (unknowns_of(part) + 1)))


def samples_kept(geometry: Geometry) -> int:
    """How many patches a fit of this geometry keeps in memory."""
    if formed_part(geometry) != geometry:
        return MOST_KEPT
    unknowns = unknowns_of(geometry) + 1
    most = KEPT_BYTES // (4 * geometry.groups * unknowns)
    return min(most, max(FEWEST_SAMPLES, min(MOST_SAMPLES, KEPT_PER_UNKNOWN * unknowns)))


def samples_by_batch(needed: int, batches: Sequence[Values]) -> list[int]:
    """How many patches to take from each batch ``[images, ...]``, for ``needed`` together: in proportion to its images.

    Raises:
        TaskError: There are no images.
    """
    images = sum(samples_in(batch) for batch in batches)
    if not images:
        raise TaskError(
            "there is no calibration data to fit on", hint="give the task calibration data; a few hundred images do"
        )
    return [-(-needed * samples_in(batch) // images) for batch in batches]


def sample_positions(
    shape: torch.Size | tuple[int, ...], count: int, generator: torch.Generator
) -> Int[Tensor, "samples 3"]:
    """Random output pixels (image, row, column) of a target ``[batch, out, rows, columns]``, all if there are fewer."""
    batch, _, rows, columns = shape
    total = batch * rows * columns
    flat = torch.randperm(total, generator=generator)[:count].sort().values
    return torch.stack([flat // (rows * columns), flat // columns % rows, flat % columns], 1)


def all_positions(targets: Tensor) -> Int[Tensor, "samples 3"]:
    """Every output pixel of a target ``[batch, out, rows, columns]``."""
    return sample_positions(targets.shape, targets.numel(), torch.Generator().manual_seed(0))


def windows(
    inputs: Float[Tensor, "batch in_channels height width"], geometry: Geometry
) -> Float[Tensor, "batch in_channels rows columns kernel_height kernel_width"]:
    """The input under the kernel at every output pixel: a view of the padded input."""
    top, left, bottom, right = geometry.padding
    (kh, kw), (sh, sw) = geometry.kernel, geometry.stride
    return F.pad(inputs, (left, right, top, bottom)).unfold(2, kh, sh).unfold(3, kw, sw)


def at(
    values: Float[Tensor, "batch channels rows columns *kernel"], positions: Int[Tensor, "samples 3"], groups: int
) -> Float[Tensor, "groups samples per_group"]:
    """What targets or windows hold at some positions."""
    image, row, column = positions.to(values.device).unbind(1)
    taken = values[image, :, row, column]
    return taken.reshape(len(taken), groups, taken.shape[1:].numel() // groups).transpose(0, 1)


def beside_shifts(
    patches: Float[Tensor, "groups samples unknowns"],
    shifts: Sequence[Float[Tensor, "_ _ 1 1"]],
    positions: Int[Tensor, "samples 3"],
) -> Float[Tensor, "groups samples _"]:
    """Patches with the shifts of their images behind them; one of a single image is that of all."""
    if not shifts:
        return patches
    image = positions[:, 0].to(patches.device)
    values = (shift.flatten(1)[image if len(shift) > 1 else image * 0] for shift in shifts)
    return torch.cat([patches, *(value.expand(len(patches), -1, -1) for value in values)], 2)


def in_parts(positions: Int[Tensor, "samples 3"], numbers: int) -> Iterator[Tensor]:
    """The positions, so many at a time that patches of so many numbers do not take much memory."""
    yield from torch.split(positions, max(1, min(AT_ONCE, UNFOLDED_BYTES // (12 * numbers))))


def part_of(geometry: Geometry, full: Geometry) -> Int[Tensor, " unknowns"]:
    """Which unknowns of a kernel are those of a smaller one inside it; both see the same output pixels.

    Raises:
        ValueError: The smaller one is no part of it.
    """
    top, left = full.padding[0] - geometry.padding[0], full.padding[1] - geometry.padding[1]
    margin = (full.kernel[0] - geometry.kernel[0], full.kernel[1] - geometry.kernel[1])
    bottom, right = full.padding[2] - geometry.padding[2], full.padding[3] - geometry.padding[3]
    inside = min(top, left, bottom, right) >= 0 and (top + bottom, left + right) == margin
    same = (geometry.in_channels, geometry.groups, geometry.stride, geometry.dilation) == (
        full.in_channels,
        full.groups,
        full.stride,
        full.dilation,
    )
    if not (inside and same):
        raise ValueError(f"{geometry} is no part of {full}")
    grid = torch.arange(unknowns_of(full)).reshape(-1, *full.kernel)
    return grid[:, top : top + geometry.kernel[0], left : left + geometry.kernel[1]].reshape(-1)
