"""The linearised block: a block without its inner activations, all zero padding at its input, nothing merged.

It computes exactly what the merged convolution computes, with the source's own convolutions and norms, so that it can
be trained as the papers do it, and so that the merge can be proved against it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trt_layermerge.blocks.composition import Composition
from trt_layermerge.blocks.lowering import Lowering
from trt_layermerge.merging.algebra import (
    Convolution,
    averaging,
    cropped,
    from_modules,
    identity,
    normalised,
    selecting,
)
from trt_layermerge.merging.modules import Normed
from trt_layermerge.network.chain import Layer, Unit
from trt_layermerge.network.device import device_of
from trt_layermerge.network.geometry import Geometry, Sides
from trt_layermerge.network.padding import remove_padding

MOST_NUMBERS = 1 << 25
"""Numbers of all the maps together that one is made of, at a time."""

_Name = TypeVar("_Name", int, str)
"""What tensors are called: numbers in a chain, nodes in a region."""


def folded(module: fx.GraphModule, composed: Composition, dtype: torch.dtype = torch.float64) -> Convolution:
    """The one convolution that layers in a row and skips inside make, norms folded, idle taps cropped."""
    device = device_of(module)

    def weights(unit: Unit) -> Convolution:
        channels = unit.geometry.in_channels
        norm = None if unit.norm is None else called(module, unit.norm)
        conv = None if unit.conv is None else called(module, unit.conv)
        if isinstance(conv, nn.Conv2d):
            shift = unit.index if isinstance(unit, Layer) and unit.shift is not None else None
            return from_modules(conv, norm, dtype, shift=shift)
        if isinstance(conv, nn.AvgPool2d):
            return averaging(conv, channels, dtype, device)
        assert norm is not None
        return normalised(identity(channels, dtype, device), norm)

    def made(start: Convolution) -> Convolution:
        whole: Convolution = composed.interpret(
            identity=lambda _: start,
            layer=weights,
            skip=lambda skip: reduce(Convolution.then, map(weights, skip.units)),
        )
        return cropped(whole, (height, width))

    channels, height, width = composed.chain.shape(composed.block.start)
    at_once = _inputs_at_once(composed)
    if at_once >= channels:
        return made(identity(channels, dtype, device))
    geometry = composed.geometry
    weight = torch.empty(geometry.out_channels, channels, *geometry.kernel, dtype=dtype, device=device)
    for first in range(0, channels, at_once):
        some = range(first, min(first + at_once, channels))
        part = made(selecting(channels, some, dtype, device))
        weight[:, some.start : some.stop] = part.weight
    return replace(part, geometry=geometry, weight=weight)


def _inputs_at_once(composed: Composition) -> int:
    """How many inputs a map is made of at a time, where all of it would take much memory before it is cropped.

    Behind strides its taps are many, and few of them are left on a small image: MobileNetV2's last twelve layers have
    15x15, of which 7x7 meet an image of 4x4.
    """
    whole = composed.uncropped
    if whole.groups > 1:
        return whole.in_channels
    outputs = whole.out_channels + sum(layer.geometry.out_channels for layer in composed.layers)
    return max(1, MOST_NUMBERS // (outputs * whole.kernel[0] * whole.kernel[1]))


def normed(module: fx.GraphModule, lowered: Lowering, block: nn.Module) -> nn.Module:
    """What takes a block's place, with a copy of the group norm that moves behind it, if one does."""
    norm = lowered.post_norm
    return block if norm is None else Normed(block, copy.deepcopy(called(module, norm.norm)))


def called(module: fx.GraphModule, node: str) -> nn.Module:
    """The module that a node of the normal form calls."""
    targets = {n.name: str(n.target) for n in module.graph.nodes if n.op == "call_module"}
    return module.get_submodule(targets[node])


class LinearisedBlock(nn.Module):
    """The kept layers of a block in a row, linear, on an input that is padded once; what they are shifted by stays.

    Tensor ``l`` inside the block is larger than in the source by a margin on each side: what later layers need of the
    padding that was moved to the input. Each reader crops what it does not need.
    """

    def __init__(self, module: fx.GraphModule, composed: Composition) -> None:
        super().__init__()
        self.composed, self.block, self.skips = composed, composed.block, composed.skips
        self.shifts = tuple(layer.index for layer in composed.layers if layer.shift is not None)
        channels = [composed.chain.shape(index)[0] for index in self.shifts]
        self.shapes = (composed.chain.shape(self.block.start), *((count, 1, 1) for count in channels))
        self.margins = self._margins()
        self.parts = nn.ModuleDict()
        for layer in composed.layers:
            self._copy(module, str(layer.index), (layer,))
        for number, skip in enumerate(self.skips):
            if skip.geometry is not None and skip.end in self.margins:
                self._copy(module, f"skip{number}", skip.units)

    def forward(self, x: Tensor, *shifts: Tensor) -> Tensor:
        """Tensor ``end`` of the block before its activation, from tensor ``start``, ``[batch, channels, h, w]``.

        Args:
            x: Tensor ``start``, behind the pre-norm of the first layer if that has one.
            shifts: Those of the kept layers, in order, ``[batch, channels, 1, 1]``.
        """
        added = dict(zip(self.shifts, shifts, strict=True))
        top, left, bottom, right = self.margins[self.block.start]
        tensors = {self.block.start: F.pad(x, (left, right, top, bottom))}
        for index in range(self.block.start + 1, self.block.end + 1):
            if index in self.margins:
                tensors[index] = self._tensor(index, tensors, added.get(index))
        return tensors[self.block.end]

    def _tensor(self, index: int, tensors: dict[int, Tensor], shift: Tensor | None) -> Tensor:
        arriving = [(n, skip) for n, skip in enumerate(self.skips) if skip.end == index]
        total = None
        if not any(self.composed.drops(skip) for _, skip in arriving):
            layer = self.composed.chain.layers[index - 1].geometry if index in self.composed.kept else None
            total = self._part(str(index), layer, index - 1, index, tensors, shift)
        for number, skip in arriving:
            term = self._part(f"skip{number}", skip.geometry, skip.start, index, tensors)
            total = term if total is None else total + term
        assert total is not None
        return total

    def _part(
        self,
        name: str,
        geometry: Geometry | None,
        source: int,
        target: int,
        tensors: dict[int, Tensor],
        shift: Tensor | None = None,
    ) -> Tensor:
        need = needed(geometry, self.margins[target])
        x = crop(tensors[source], self.margins[source], need)
        if geometry is None:
            return x
        conv, *norms = self.parts[name].children()
        y: Tensor = conv(x) if shift is None else conv(x) + shift
        for norm in norms:
            y = norm(y)
        return y

    def _margins(self) -> dict[int, Sides]:
        """Margin of every tensor that is read: the most that a reader needs, from the block's end to its start.

        What a dropped branch leads through is read by nobody and has none.
        """
        margins: dict[int, Sides] = {self.block.end: (0, 0, 0, 0)}
        for index in range(self.block.end, self.block.start, -1):
            if index not in margins:
                continue
            arriving = [skip for skip in self.skips if skip.end == index]
            if not any(self.composed.drops(skip) for skip in arriving):
                geometry = self.composed.chain.layers[index - 1].geometry if index in self.composed.kept else None
                raise_to(margins, index - 1, needed(geometry, margins[index]))
            for skip in arriving:
                raise_to(margins, skip.start, needed(skip.geometry, margins[index]))
        return margins

    def _copy(self, module: fx.GraphModule, name: str, units: Sequence[Unit]) -> None:
        nodes = [node for unit in units for node in (unit.conv, unit.norm) if node is not None]
        parts = [copy.deepcopy(called(module, node)) for node in nodes]
        for part in parts:
            if isinstance(part, (nn.Conv2d, nn.AvgPool2d)):
                remove_padding(part)
        self.parts[name] = nn.Sequential(*parts)


def needed(geometry: Geometry | None, margin: Sides) -> Sides:
    """Margin that the input of a convolution needs for its output to have ``margin``."""
    if geometry is None:
        return margin
    (sh, sw), padding = geometry.stride, geometry.padding
    return (
        margin[0] * sh + padding[0],
        margin[1] * sw + padding[1],
        margin[2] * sh + padding[2],
        margin[3] * sw + padding[3],
    )


def raise_to(margins: dict[_Name, Sides], index: _Name, need: Sides) -> None:
    """Let a tensor's margin be no less than what a reader needs."""
    has = margins.get(index, (0, 0, 0, 0))
    margins[index] = (max(has[0], need[0]), max(has[1], need[1]), max(has[2], need[2]), max(has[3], need[3]))


def crop(x: Tensor, has: Sides, need: Sides) -> Tensor:
    """An image with less of a margin."""
    top, left, bottom, right = (a - b for a, b in zip(has, need, strict=True))
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]
