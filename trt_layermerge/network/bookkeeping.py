"""Regions that are linear but for activations: convolutions, and bookkeeping that only moves channels about.

A concatenation, a split, a slice or a shuffle of channels picks each of its channels from a tensor before it. Which one
is not read off the operators: numbered channels and pixels are sent through them, so that any way to write it is known
for what it does.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from math import gcd
from typing import Any

import torch
from torch import Tensor, fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.chain import ImageShape
from trt_layermerge.network.footprint import POINT
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.nesting import is_image
from trt_layermerge.network.placing import operator_name
from trt_layermerge.network.region import Region
from trt_layermerge.network.units import Units

MOVING = {
    "cat", "channel_shuffle", "chunk", "clone", "concat", "flatten", "flip", "getitem", "index_select", "narrow",
    "permute", "reshape", "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "swapaxes",
    "tensor_split", "transpose", "unbind", "unflatten", "unsqueeze", "view",
}  # fmt: skip
"""Operators that compute nothing."""

_PIXEL, _CHANNEL, _SAMPLE = 24, 18, 2
"""Bits for the number of a pixel, of a channel and of a sample."""


@dataclass(frozen=True)
class LinearStep:
    """One tensor of a linear form: a convolution of another one, channels picked from others, or else their sum.

    Attributes:
        node: Node of its result.
        sources: Nodes of what it is made of.
        geometry: Of the convolution, average pooling or norm that its node calls.
        channels: Of picked channels, which source each is from, and its number there.
    """

    node: str
    sources: tuple[str, ...]
    geometry: Geometry | None = None
    channels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class LinearForm:
    """What a region computes without its inner activations, all zero padding at its input.

    Attributes:
        region: The region.
        steps: In order of execution; the last one makes the result.
        geometry: Of the one convolution that this is, with the most groups that it has, idle taps cropped.
    """

    region: Region
    steps: tuple[LinearStep, ...]
    geometry: Geometry


class Bookkeeping:
    """What the nodes of one normal form do to channels.

    Args:
        module: The normal form.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.units = Units(module)
        self.nodes = {node.name: node for node in module.graph.nodes}
        self.by_number = dict(enumerate(module.graph.nodes))
        self.numbers = {node: number for number, node in self.by_number.items()}
        self._steps: dict[fx.Node, LinearStep | str | None] = {}
        self._values: dict[fx.Node, Any] = {}

    def linear_form(self, region: Region) -> LinearForm | None:
        """The linear form of a region; ``None`` where something in it is not linear and no activation."""
        steps: list[LinearStep] = []
        alias = {region.input: region.input}
        todo, read = [self.nodes[region.before_activation]], set[fx.Node]()
        while todo:
            node = todo.pop()
            if node.name == region.input or node in read:
                continue
            read.add(node)
            if (step := self.step(node)) is None:
                return None
            todo += [self.nodes[name] for name in ((step,) if isinstance(step, str) else step.sources)]
        for node in sorted(read, key=self.numbers.__getitem__):
            step = self.step(node)
            if isinstance(step, LinearStep):
                steps.append(replace(step, sources=tuple(alias[source] for source in step.sources)))
                alias[node.name] = node.name
            elif step is not None:
                alias[node.name] = alias[step]
        geometry = _geometry(steps, region) if steps and alias[region.before_activation] == steps[-1].node else None
        return None if geometry is None else LinearForm(region, tuple(steps), geometry)

    def step(self, node: fx.Node) -> LinearStep | str | None:
        """What a node does; the node before it where that is nothing, or an activation; ``None`` for all else."""
        if node not in self._steps:
            self._steps[node] = self._step(node)
        return self._steps[node]

    def _step(self, node: fx.Node) -> LinearStep | str | None:
        part = self.units.module(node)
        if not is_image(node) or node.meta.get("multiple", 1) != 1:
            return None
        if isinstance(part, nn.Conv2d | nn.AvgPool2d | nn.BatchNorm2d):
            (source,) = node.all_input_nodes
            geometry = self.units.unit(node)[0].geometry if self.units.starts(node) else None
            return None if geometry is None else LinearStep(node.name, (source.name,), geometry)
        if part is not None:
            named = self.units.inert(node) or activation_name(part) is not None
            return node.all_input_nodes[0].name if named else None
        if node.target is operator.add:
            return LinearStep(node.name, tuple(str(source) for source in node.args))
        return self._picked(node) if _moves(node) else None

    def _picked(self, node: fx.Node) -> LinearStep | None:
        """The channels that a node picks, if every pixel of every sample stays where it is."""
        try:
            value = self._run(node)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None  # made for another batch, or reads what is no image
        shape: ImageShape = node.meta["shape"]
        if not isinstance(value, Tensor) or value.shape != (2, *shape):
            return None
        first = value[:1, :, :1, :1]
        if not torch.equal(value, first + _numbered(shape)[:, :1]):
            return None
        above = _PIXEL + _CHANNEL + _SAMPLE
        found = [(number >> above, (number >> _PIXEL) % 2**_CHANNEL) for number in first.flatten().tolist()]
        sources = list(dict.fromkeys(number for number, _ in found))
        read = [self.by_number[number] for number in sources]
        if any(source.meta["shape"][1:] != shape[1:] for source in read):
            return None  # rows cut off at the bottom
        channels = tuple((sources.index(number), channel) for number, channel in found)
        return LinearStep(node.name, tuple(source.name for source in read), None, channels)

    def _run(self, node: fx.Node) -> Any:
        """What a node makes of numbered channels: an image of its own, or what is moved on the way to one."""
        if not _moves(node):
            return self._image(node)
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._given)
        target: Any = node.target
        return target(*args, **kwargs)

    def _given(self, node: fx.Node) -> Any:
        if is_image(node):
            return self._image(node)
        if node not in self._values:
            self._values[node] = self._run(node)
        return self._values[node]

    def _image(self, node: fx.Node) -> Tensor:
        if not is_image(node):
            raise ValueError(f"{node} holds no image")
        return _numbered(node.meta["shape"]) + (self.numbers[node] << (_PIXEL + _CHANNEL + _SAMPLE))


def _moves(node: fx.Node) -> bool:
    return node.op == "call_function" and operator_name(node) in MOVING


def _numbered(shape: ImageShape) -> Tensor:
    """Two samples ``[2, channels, height, width]`` whose every number says where it stands."""
    channels, height, width = shape
    pixels = torch.arange(height * width).reshape(height, width)
    return (
        (torch.arange(2) << (_PIXEL + _CHANNEL))[:, None, None, None]
        + (torch.arange(channels) << _PIXEL)[:, None, None]
        + pixels
    )


def _geometry(steps: Sequence[LinearStep], region: Region) -> Geometry | None:
    """The one convolution that steps make; ``None`` where terms differ in stride, or make an image of another size."""
    views = {region.input: POINT}
    for step in steps:
        try:
            whole = reduce(Geometry.beside, (views[source] for source in step.sources))
        except ValueError:
            return None
        views[step.node] = whole if step.geometry is None else whole.then(_of_one_channel(step.geometry))
    size, channels = region.input_shape[1:], (region.input_shape[0], region.output_shape[0])
    found = views[steps[-1].node]
    if found.output_size(size) != region.output_shape[1:]:
        return None
    groups = _groups(_read_channels(steps, region), *channels)
    return replace(found, in_channels=channels[0], out_channels=channels[1], groups=groups).cropped(size)


def _of_one_channel(geometry: Geometry) -> Geometry:
    return replace(geometry, in_channels=1, out_channels=1, groups=1)


def _read_channels(steps: Iterable[LinearStep], region: Region) -> Sequence[int]:
    """Which channels of the region's input each channel of its result depends on, as the bits of a number."""
    masks: dict[str, Sequence[int]] = {region.input: [1 << channel for channel in range(region.input_shape[0])]}
    for step in steps:
        masks[step.node] = list(_masks(step, masks))
    return masks[step.node]


def _masks(step: LinearStep, masks: Mapping[str, Sequence[int]]) -> Iterator[int]:
    if step.channels:
        yield from (masks[step.sources[source]][channel] for source, channel in step.channels)
    elif step.geometry is None:
        terms = zip(*(masks[source] for source in step.sources), strict=True)
        yield from (reduce(operator.or_, term) for term in terms)
    else:
        before, groups = masks[step.sources[0]], step.geometry.groups
        each = len(before) // groups
        for group in range(groups):
            mask = reduce(operator.or_, set(before[group * each : (group + 1) * each]))
            yield from [mask] * (step.geometry.out_channels // groups)


def _groups(masks: Sequence[int], inputs: int, outputs: int) -> int:
    """The most groups of channels that depend on nothing of one another."""
    most = gcd(inputs, outputs)
    for groups in sorted((one for one in range(1, most + 1) if most % one == 0), reverse=True):
        each, made = inputs // groups, outputs // groups
        own = [((1 << each) - 1) << (group * each) for group in range(groups)]
        if all(mask & ~own[channel // made] == 0 for channel, mask in enumerate(masks)):
            return groups
    raise AssertionError("one group holds all")
