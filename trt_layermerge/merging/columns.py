"""Weights of convolutions as least-squares problems have them: a column for each output, some of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

from trt_layermerge.blocks.lowering import Shift
from trt_layermerge.merging.algebra import Convolution, embed
from trt_layermerge.merging.patches import unknowns_of
from trt_layermerge.merging.ridge import Coefficients
from trt_layermerge.network.geometry import Geometry

SOLVED_BYTES = 64 << 20
"""Most that a solution takes which is made at a time, in float64: that of some output channels."""


def some_outputs(geometry: Geometry, shifts: Sequence[Shift] = ()) -> Iterator[slice]:
    """The outputs of each group, some at a time: whole solutions would be in memory several times."""
    per_group = geometry.out_channels // geometry.groups
    size = 8 * geometry.groups * (unknowns_of(geometry) + channels_of(shifts) + 1)
    parts = ceil(per_group / max(1, SOLVED_BYTES // size))
    bounds = [part * per_group // parts for part in range(parts + 1)]
    return (slice(first, last) for first, last in pairwise(bounds))


def some_columns(
    prior: Convolution | None, geometry: Geometry, outputs: slice, shifts: Sequence[Shift] = ()
) -> Coefficients:
    """As ``prior_columns``, of some outputs of each group, as many of which the prior has as the solution."""
    width = len(range(outputs.start, outputs.stop)) * geometry.groups
    part = None if prior is None else prior.outputs(outputs)
    return prior_columns(part, replace(geometry, out_channels=width), shifts)


def prior_columns(prior: Convolution | None, geometry: Geometry, shifts: Sequence[Shift] = ()) -> Coefficients:
    """The weights of a prior in the frame of a solution, float64; zeros without one, and for shifts it does not carry.

    Raises:
        ValueError: It does not fit in.
    """
    groups, per_group = geometry.groups, geometry.out_channels // geometry.groups
    if prior is None:
        unknowns = unknowns_of(geometry) + channels_of(shifts) + 1
        return torch.zeros(groups, unknowns, per_group, dtype=torch.float64)
    weight = embed(prior, geometry)
    nothing = (weight.new_zeros(geometry.out_channels, shift.channels) for shift in shifts)
    carries = (prior.carries.get(shift.number, zeros) for shift, zeros in zip(shifts, nothing, strict=True))
    parts = (weight, *carries, prior.bias)
    return torch.cat([part.double().reshape(groups, per_group, -1).transpose(1, 2) for part in parts], 1)


def from_columns(solutions: Iterable[Coefficients], geometry: Geometry, shifts: Sequence[Shift] = ()) -> Convolution:
    """The convolution whose weights solutions hold, each those of the next outputs of all groups."""
    groups, per_group, first = geometry.groups, geometry.out_channels // geometry.groups, 0
    sizes, parts = [unknowns_of(geometry), *(shift.channels for shift in shifts), 1], list[Tensor]()
    for solution in solutions:
        parts = parts or [solution.new_empty(groups, per_group, size) for size in sizes]
        last = first + solution.shape[2]
        for part, columns in zip(parts, torch.split(solution, sizes, 1), strict=True):
            part[:, first:last] = columns.transpose(1, 2)
        first = last
        del solution, columns  # before the next one is there
    weight, *carries, bias = (part.flatten(0, 1) for part in parts)
    weight = weight.reshape(geometry.out_channels, geometry.in_channels // geometry.groups, *geometry.kernel)
    return Convolution(
        geometry, weight, bias[:, 0], {shift.number: carry for shift, carry in zip(shifts, carries, strict=True)}
    )


def channels_of(shifts: Sequence[Shift]) -> int:
    """Channels of shifts together: what they are to a row of the least-squares problem."""
    return sum(shift.channels for shift in shifts)
