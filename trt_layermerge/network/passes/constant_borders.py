"""Padding with one constant per channel, however it is written, as padding with zeros between two shifts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trt_layermerge.network.geometry import Sides
from trt_layermerge.network.padding import sides_of
from trt_layermerge.network.passes.parameter_values import ParameterValues
from trt_layermerge.network.placing import operator_name, shaken

_WRITES = (
    "pad", "constant_pad_nd", "cat", "slice", "select", "slice_scatter", "select_scatter", "copy", "where", "index_put",
    "masked_fill", "fill", "clone",
)  # fmt: skip
"""Operators by which an image and constants are put beside each other."""


def shift_constant_borders(module: fx.GraphModule) -> fx.GraphModule:
    """Write a border of the value ``v`` around an image ``y`` as ``pad(y - v) + v``, where both shifts can be folded.

    1. Such a border is whatever ends in one: padding with a number, constants that are written over it or put beside
       the image, an image that is written into constants. What it computes of zeros, ones and noise tells it.
    2. It is rewritten between a convolution or a batch norm and a convolution without padding, which take in the two
       shifts (``channel_maps.py``). Anywhere else it stays as it is, exact as well.

    Ensures: the same function, up to rounding.
    """
    constants = ParameterValues(module, batch=1)
    calls = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")

    def own(node: fx.Node, *kinds: type[nn.Module]) -> nn.Module | None:
        alone = len(node.users) == 1 and calls[str(node.target)] == 1  # what computes the border may read it, too
        called = module.get_submodule(str(node.target)) if alone else None
        return called if isinstance(called, kinds) else None

    for image in list(module.graph.nodes):
        written = own(image, nn.Conv2d, nn.BatchNorm2d) and operator_name(next(iter(image.users))) in _WRITES
        region = _region(image, constants) if written else []
        read = [node for node in region if set(node.users) - set(region)]
        if len(read) != 1 or len(read[0].users) != 1:
            continue  # something else reads what is written on the way
        conv = own(next(iter(read[0].users)), nn.Conv2d)
        if not isinstance(conv, nn.Conv2d) or any(sides_of(conv)):
            continue
        shapes = [node.meta.get("shape", ()) for node in (image, read[0])]
        alike = [len(shape) for shape in shapes] == [3, 3] and shapes[0][0] == shapes[1][0]
        border = _border(image, region, read[0], constants) if alike else None
        if border is not None and (len(region) > 1 or bool(border[1].any())):  # else it is a padding with zeros already
            _rewrite(module, image, read[0], *border)
    return shaken(module)


def _region(image: fx.Node, constants: ParameterValues) -> list[fx.Node]:
    """All nodes that an image and constants are put together by."""
    region: list[fx.Node] = []
    for node in image.graph.nodes:
        inputs = set(node.all_input_nodes)
        new = inputs & {image, *region} and all(
            value is image or value in region or value in constants for value in inputs
        )
        if operator_name(node) in _WRITES and new:
            region.append(node)
    return region


def _border(
    image: fx.Node, region: list[fx.Node], last: fx.Node, constants: ParameterValues
) -> tuple[Sides, Tensor] | None:
    """Width and value, ``[C, 1, 1]``, of the border that a region puts around an image, if that is what it does."""
    shape = image.meta["shape"]

    def written(values: Tensor) -> Tensor:
        known: dict[fx.Node, Any] = {image: values}
        for node in region:
            args, kwargs = fx.map_arg(
                (node.args, node.kwargs), lambda n: known[n] if n in known else constants.known(n)
            )
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # of a call_function
        result: Tensor = known[last]
        return result

    try:
        empty = written(torch.zeros(1, *shape))
    except RuntimeError:
        return None  # a constant takes its size from the image
    inside = written(torch.ones(1, *shape)) != empty
    rows, columns = (inside.any(1).any(axis).nonzero()[:, -1] for axis in (2, 1))
    if inside.all() or (len(rows), len(columns)) != tuple(shape[1:]):
        return None
    top, left = int(rows[0]), int(columns[0])
    sides = (top, left, empty.shape[2] - top - shape[1], empty.shape[3] - left - shape[2])
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    _, _, row, column = (~inside).nonzero()[0].tolist()
    value = empty[0, :, row : row + 1, column : column + 1]
    right = torch.equal(empty, torch.where(inside, 0.0, value))
    return (sides, value) if right and torch.equal(written(noise), _padded(noise, sides) + empty) else None


def _padded(image: Tensor, sides: Sides) -> Tensor:
    top, left, bottom, right = sides
    return F.pad(image, (left, right, top, bottom))


def _rewrite(module: fx.GraphModule, image: fx.Node, border: fx.Node, sides: Sides, value: Tensor) -> None:
    top, left, bottom, right = sides
    name, graph, aten = f"{border.name}_border", module.graph, torch.ops.aten
    if not value.any():
        with graph.inserting_before(next(iter(border.users))):
            padded = graph.call_function(aten.pad.default, (image, [left, right, top, bottom]))
        padded.meta = dict(border.meta)
        border.replace_all_uses_with(padded)
        return
    module.register_buffer(name, value.clone())
    with graph.inserting_before(next(iter(border.users))):
        held = graph.get_attr(name)
        below = graph.call_function(aten.sub.Tensor, (image, held))
        padded = graph.call_function(aten.pad.default, (below, [left, right, top, bottom]))
        result = graph.call_function(aten.add.Tensor, (padded, held))
    below.meta, padded.meta, result.meta = dict(image.meta), dict(border.meta), dict(border.meta)
    border.replace_all_uses_with(result)
