"""What an output pixel of a region sees of its input, as the one convolution that sees as much.

Only places count, not weights: a pooling sees what a convolution of its window does, a sum or concatenation what its
terms see together, and what depends on the whole image, such as a gate, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import fx, nn

from trt_layermerge.network.chain import ImageShape
from trt_layermerge.network.geometry import Geometry, Pair, Sides
from trt_layermerge.network.padding import geometry_of
from trt_layermerge.network.placing import called_module
from trt_layermerge.network.pooling import pooling_geometry

POINT = Geometry(1, 1, (1, 1))
"""Sees the pixel that it makes."""

WIDEST = 15
"""Kernel of the convolution that stands for a region of which nothing is known."""

_POOLINGS = (torch.ops.aten.max_pool2d.default, torch.ops.aten.max_pool2d_with_indices.default)


def footprint(module: fx.GraphModule, nodes: Iterable[fx.Node], start: fx.Node, end: fx.Node) -> Geometry | None:
    """The convolution from one tensor to another that sees what the nodes between them do.

    Args:
        module: The normal form.
        nodes: What lies between, ``end`` among it, in order of execution.
        start: An image.
        end: An image.

    Returns:
        ``None`` where no convolution makes an image of that size: the grid of one is no whole multiple of the other's.
    """
    shape: ImageShape = start.meta["shape"]
    wanted: ImageShape = end.meta["shape"]
    seen: dict[fx.Node, Geometry | None] = {start: POINT}
    for node in nodes:
        seen[node] = _seen(module, node, seen)
    found = seen[end]
    if found is None or found.output_size(shape[1:]) != wanted[1:]:
        found = _centred(shape[1:], wanted[1:])
    return None if found is None else replace(found, in_channels=shape[0], out_channels=wanted[0])


def _seen(module: fx.GraphModule, node: fx.Node, seen: dict[fx.Node, Geometry | None]) -> Geometry | None:
    """What a node's pixels see; ``None`` where that is not known, or everything."""
    size = node.meta.get("shape", ())[1:]
    before = [source for source in node.all_input_nodes if source in seen]
    known = [(source, view) for source in before if (view := seen[source]) is not None]
    if not known:
        return None
    source, view = known[0]
    here = _window(module, node)
    if here is not None:
        return view.then(here)
    if len(before) == 1:
        # Norms, activations and changes of layout leave pixels where they are; what makes other numbers of them, as
        # a resize or a mean over the image, is not followed.
        same = _numbers(source) == _numbers(node) or source.meta.get("shape", ())[1:] == size
        return view if same else None
    views = [view for source, view in known if source.meta.get("shape", ())[1:] == size]
    if not views or len({view.stride for view in views}) > 1:
        return None
    whole = views[0]
    for other in views[1:]:
        whole = whole.beside(other)
    return whole


def _window(module: fx.GraphModule, node: fx.Node) -> Geometry | None:
    """The window of a convolution or pooling, of one channel; ``None`` for all else."""
    part = called_module(module, node)
    if isinstance(part, nn.Conv2d):
        return replace(geometry_of(part), in_channels=1, out_channels=1, groups=1)
    if isinstance(part, nn.AvgPool2d):
        return pooling_geometry(part, 1)
    if node.target not in _POOLINGS:
        return None
    kernel, stride, padding, dilation = (*map(_pair, node.args[1:5]), *[None] * 4)[:4]
    sides = padding or (0, 0)
    return Geometry(1, 1, kernel or (1, 1), stride or kernel or (1, 1), (*sides, *sides), dilation or (1, 1))


def _pair(value: object) -> Pair | None:
    if isinstance(value, int):
        return value, value
    numbers = list(value) if isinstance(value, list | tuple) else []
    return (int(numbers[0]), int(numbers[-1])) if numbers else None


def _numbers(node: fx.Node) -> int:
    total = 1
    for size in node.meta.get("shape", ()):
        total *= size
    return total


def _centred(size: Pair, wanted: Pair) -> Geometry | None:
    """A wide convolution with its pixels in the middle of what they are made of."""
    axes = [_axis(before, after) for before, after in zip(size, wanted, strict=True)]
    if any(axis is None for axis in axes):
        return None
    (rows, top, bottom, down), (columns, left, right, across) = (axis for axis in axes if axis is not None)
    sides: Sides = (top, left, bottom, right)
    return Geometry(1, 1, (rows, columns), (down, across), sides)


def _axis(size: int, wanted: int) -> tuple[int, int, int, int] | None:
    """Kernel, padding before and behind, and stride along one axis."""
    if wanted < 1 or size % wanted:
        return None
    stride = size // wanted
    kernel = WIDEST if size > 1 else 1
    padding = (wanted - 1) * stride + kernel - size
    return (kernel, (padding + 1) // 2, padding // 2, stride) if padding >= 0 else None
