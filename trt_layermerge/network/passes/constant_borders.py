"""Padding with one constant per channel, however it is written, as padding with zeros between two shifts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from trt_layermerge.network.geometry import Sides
from trt_layermerge.network.padding import constant_sides, sides_of
from trt_layermerge.network.passes.parameter_values import ParameterValues
from trt_layermerge.network.placing import operator_name, shaken

_WRITES = (
    "slice", "select", "slice_scatter", "select_scatter", "copy", "where", "index_put", "masked_fill", "fill", "clone",
)  # fmt: skip
"""Operators by which constants are written into a part of an image."""


def shift_constant_borders(module: fx.GraphModule) -> fx.GraphModule:
    """Write a border of the value ``v`` around an image ``y`` as ``pad(y - v) + v``, where both shifts can be folded.

    1. Such a border is a padding with a number, or one that constants are then written over: it is recognised by what
       it computes, of zeros and of noise.
    2. It is rewritten between a convolution or a batch norm and a convolution without padding, which take in the two
       shifts (``channel_maps.py``). Anywhere else it stays as it is, exact as well.

    Ensures: the same function, up to rounding.
    """
    constants = ParameterValues(module)
    calls = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_module")

    def own(node: fx.Node, *kinds: type[nn.Module]) -> nn.Module | None:
        alone = len(node.users) == 1 and calls[str(node.target)] == 1  # what computes the border may read it, too
        called = module.get_submodule(str(node.target)) if alone else None
        return called if isinstance(called, kinds) else None

    for pad in list(module.graph.nodes):
        sides = constant_sides(pad)
        if sides is None or own(pad.all_input_nodes[0], nn.Conv2d, nn.BatchNorm2d) is None:
            continue
        border = _last_write(pad, constants)
        behind = None if border is None or len(border.users) != 1 else next(iter(border.users))
        conv = None if behind is None else own(behind, nn.Conv2d)
        if border is None or not isinstance(conv, nn.Conv2d) or any(sides_of(conv)):
            continue
        value = _border_value(pad, border, sides, constants)
        if value is not None and bool(value.any()):
            _rewrite(module, pad, border, sides, value)
    return shaken(module)


def _region(pad: fx.Node, constants: ParameterValues) -> list[fx.Node]:
    """A padding, and what constants are written into its result by."""
    region = [pad]
    for node in pad.graph.nodes:
        written = operator_name(node) in _WRITES
        inputs = node.all_input_nodes
        if written and set(region) & set(inputs) and all(value in region or value in constants for value in inputs):
            region.append(node)
    return region


def _last_write(pad: fx.Node, constants: ParameterValues) -> fx.Node | None:
    """The one image that all which is written around ``pad`` ends in; ``None`` if something reads it on the way."""
    region = _region(pad, constants)
    read = [node for node in region if set(node.users) - set(region)]
    return read[0] if len(read) == 1 and read[0].meta.get("shape") == pad.meta.get("shape") else None


def _border_value(pad: fx.Node, border: fx.Node, sides: Sides, constants: ParameterValues) -> Tensor | None:
    """The value of the border, ``[C, 1, 1]``, if it has one in each channel and the image in it is what it was."""
    top, left, bottom, right = sides
    region, image = _region(pad, constants), pad.all_input_nodes[0]
    shape = image.meta["shape"]
    inside = F.pad(torch.ones(1, *shape), (left, right, top, bottom)).bool()

    def written(values: Tensor) -> Tensor:
        known: dict[fx.Node, Any] = {image: values}
        for node in region:
            args, kwargs = fx.map_arg(
                (node.args, node.kwargs), lambda n: known[n] if n in known else constants.value(n)
            )
            known[node] = node.target(*args, **kwargs)  # type: ignore[operator]  # of a call_function
        result: Tensor = known[border]
        return result

    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    empty = written(torch.zeros(1, *shape))
    if bool(inside.all()) or not torch.equal(written(noise), F.pad(noise, (left, right, top, bottom)) + empty):
        return None
    _, _, row, column = (~inside).nonzero()[0].tolist()
    value = empty[0, :, row : row + 1, column : column + 1]
    return value if torch.equal(empty, torch.where(inside, 0.0, value)) else None


def _rewrite(module: fx.GraphModule, pad: fx.Node, border: fx.Node, sides: Sides, value: Tensor) -> None:
    top, left, bottom, right = sides
    name, (image,), graph = f"{pad.name}_border", pad.all_input_nodes, module.graph
    module.register_buffer(name, value.clone())
    with graph.inserting_after(border):
        held = graph.get_attr(name)
    with graph.inserting_after(held):
        below = graph.call_function(torch.ops.aten.sub.Tensor, (image, held))
    with graph.inserting_after(below):
        padded = graph.call_function(torch.ops.aten.pad.default, (below, [left, right, top, bottom]))
    with graph.inserting_after(padded):
        result = graph.call_function(torch.ops.aten.add.Tensor, (padded, held))
    below.meta, padded.meta, result.meta = dict(image.meta), dict(border.meta), dict(border.meta)
    border.replace_all_uses_with(result)
