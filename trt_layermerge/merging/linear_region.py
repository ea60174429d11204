"""The linearised region: a region without its inner activations, all zero padding at its input, nothing merged.

What ``linear.py`` is to the layers of a chain, this is to a region whose linear form is known: the same function as the
one convolution that its steps compose to, with the source's own convolutions and norms.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Block
from trt_layermerge.merging.algebra import (
    Convolution,
    averaging,
    cropped,
    divided_into,
    embed,
    from_modules,
    identity,
    normalised,
)
from trt_layermerge.merging.linear import called, crop, needed, raise_to
from trt_layermerge.network.bookkeeping import LinearForm, LinearStep
from trt_layermerge.network.device import device_of
from trt_layermerge.network.geometry import Geometry, Sides
from trt_layermerge.network.padding import remove_padding


def folded_region(module: fx.GraphModule, form: LinearForm, dtype: torch.dtype = torch.float64) -> Convolution:
    """The one convolution that a region's linear form is, norms folded, idle taps cropped."""
    device, region = device_of(module), form.region
    made = {region.input: identity(region.input_shape[0], dtype, device)}
    for step in form.steps:
        sources = [made[source] for source in step.sources]
        if step.geometry is not None:
            made[step.node] = sources[0].then(_convolution(called(module, step.node), step.geometry, dtype, device))
        elif step.channels:
            made[step.node] = _picked(sources, step)
        else:
            made[step.node] = reduce(Convolution.beside, sources)
    whole = cropped(made[form.steps[-1].node], region.input_shape[1:])
    return divided_into(whole, form.geometry.groups)


def _convolution(part: nn.Module, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> Convolution:
    if isinstance(part, nn.Conv2d):
        return from_modules(part, None, dtype)
    if isinstance(part, nn.AvgPool2d):
        return averaging(part, geometry.in_channels, dtype, device)
    return normalised(identity(geometry.in_channels, dtype, device), part)


def _picked(sources: Sequence[Convolution], step: LinearStep) -> Convolution:
    """Channels of several convolutions of one input, as one convolution."""
    frames = [replace(source.geometry, out_channels=1, groups=1) for source in sources]
    frame = replace(reduce(Geometry.beside, frames), out_channels=len(step.channels))
    weights = [embed(source, frame) for source in sources]
    weight = torch.stack([weights[source][channel] for source, channel in step.channels])
    bias = torch.stack([sources[source].bias[channel] for source, channel in step.channels])
    return Convolution(frame, weight, bias)


class LinearisedRegion(nn.Module):
    """The steps of a region on an input that is padded once.

    Every tensor is larger than in the source by a margin, as in ``LinearisedBlock``; each reader crops what it does not
    need.
    """

    def __init__(self, module: fx.GraphModule, form: LinearForm) -> None:
        super().__init__()
        self.form, self.block = form, Block.of(form.region)
        self.shapes = (form.region.input_shape,)
        self.margins = self._margins()
        self.parts = nn.ModuleDict()
        for step in form.steps:
            if step.geometry is not None:
                part = copy.deepcopy(called(module, step.node))
                if isinstance(part, nn.Conv2d | nn.AvgPool2d):
                    remove_padding(part)
                self.parts[step.node] = part

    def forward(self, x: Tensor) -> Tensor:
        """The region's output before its last activation, from its input ``[batch, channels, h, w]``."""
        top, left, bottom, right = self.margins[self.form.region.input]
        tensors = {self.form.region.input: nn.functional.pad(x, (left, right, top, bottom))}
        for step in self.form.steps:
            need = needed(step.geometry, self.margins[step.node])
            sources = [crop(tensors[source], self.margins[source], need) for source in step.sources]
            tensors[step.node] = self._made(step, sources)
        return tensors[self.form.steps[-1].node]

    def _made(self, step: LinearStep, sources: Sequence[Tensor]) -> Tensor:
        if step.geometry is not None:
            made: Tensor = self.parts[step.node](sources[0])
            return made
        if not step.channels:
            return reduce(torch.add, sources)
        first = [sum(source.shape[1] for source in sources[:number]) for number in range(len(sources))]
        index = [first[source] + channel for source, channel in step.channels]
        return torch.cat(list(sources), 1)[:, index]

    def _margins(self) -> dict[str, Sides]:
        """Margin of every tensor: the most that a reader needs, from the region's end to its start."""
        margins: dict[str, Sides] = {self.form.steps[-1].node: (0, 0, 0, 0)}
        for step in reversed(self.form.steps):
            for source in step.sources:
                raise_to(margins, source, needed(step.geometry, margins[step.node]))
        return margins
