"""Constant products and sums per channel go into the layers around them, as norms do that are written as layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.padding import sides_of
from trt_layermerge.network.passes.parameter_values import ParameterValues
from trt_layermerge.network.placing import (
    attach,
    called_module,
    common_owner,
    free_path,
    operator_name,
    reader_counts,
    shaken,
)

_LINEAR = (
    "mul",
    "multiply",
    "add",
    "sub",
    "subtract",
    "rsub",
    "neg",
    "negative",
    "addcmul",
    "div",
    "divide",
    "true_divide",
)
"""Operators that are linear in any one operand, but for the quotients, which are in the first."""


@dataclass(frozen=True)
class ChannelMap:
    """``scale * x + shift`` on images ``x``, both ``[C]`` in float64.

    Attributes:
        operand: Which argument of the operator ``x`` is.
        scale: What each channel is multiplied by.
        shift: What is added to it then.
        home: Where a layer of it would lie; empty where it is one number for all channels, which makes none.
    """

    operand: int
    scale: Tensor
    shift: Tensor
    home: str


def fold_channel_maps(module: fx.GraphModule) -> fx.GraphModule:
    """Fold every product, quotient, sum and difference with one constant per channel into a layer beside it.

    1. Into the convolution before it, transposed or not, or the batch norm, if nothing else reads that one's result or
       weights.
    2. Else into the convolution behind it, if that alone reads the map, nothing else reads its weights, and it pads
       with nothing: zeros that it puts around the image would have to be shifted, too. A scale alone passes padding.
    3. Else, where it has a number for each channel and leads to a convolution, through an activation or not, it becomes
       a layer of its own, a 1x1 convolution channel by channel, as a lone norm counts for one. Anywhere else it stays
       the product or sum that it is.

    Ensures: the same function in evaluation, weights computed in float64 and rounded once.
    """
    constants = ParameterValues(module)
    maps = {node: found for node in module.graph.nodes if (found := _channel_map(node, constants)) is not None}
    maps = {node: found for node, found in maps.items() if not found.home or _beside_layer(module, node, maps)}
    for node in [node for node, found in maps.items() if found.home]:
        # Its constants have no reader any more, which may have been parameters of layers beside it.
        node.target, node.args, node.kwargs = torch.ops.aten.alias.default, (_source(node, maps[node]),), {}
        maps[node] = replace(maps[node], operand=0)
    module = shaken(module)
    layers = _Layers(module)
    for node in list(maps):
        if layers.take_from_behind(node, maps[node]):
            del maps[node]
    for node in reversed(list(maps)):
        if layers.take_from_before(node, maps[node]):
            del maps[node]
    for node, left in maps.items():
        if not layers.take_from_behind(node, left) and left.home:  # a product's layer takes in the sum behind it
            layers.make(node, left)
    return shaken(module)


def _channel_map(node: fx.Node, constants: ParameterValues) -> ChannelMap | None:
    """What a node does to the image that it reads, if it does one thing to each channel."""
    name = operator_name(node)
    shape, operands = node.meta.get("shape", ()), [arg for arg in node.all_input_nodes if arg not in constants]
    if node.op != "call_function" or name not in _LINEAR or len(operands) != 1 or len(shape) != 3:
        return None
    places = [place for place, arg in enumerate(node.args) if arg is operands[0]]
    if len(places) != 1 or operands[0].meta.get("shape") != shape or node.kwargs.get("rounding_mode") is not None:
        return None
    if places[0] and name.endswith(("div", "divide")):
        return None
    known = {arg: constants.value(arg).double() for arg in node.all_input_nodes if arg in constants}

    def result(image: Tensor) -> Tensor:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda arg: known.get(arg, image))
        value: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]  # of a call_function
        return value

    zero = result(torch.zeros(1, *shape, dtype=torch.float64))
    one = result(torch.ones(1, *shape, dtype=torch.float64))
    if one.shape != (1, *shape) or any(bool((value != value[..., :1, :1]).any()) for value in (zero, one)):
        return None
    each = any(value.numel() > 1 for value in known.values())
    home = common_owner(name for arg in known for name in constants.names(arg)) or name
    return ChannelMap(places[0], (one - zero)[0, :, 0, 0], zero[0, :, 0, 0], home if each else "")


class _Layers:
    """The layers of a graph, and what they take in."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.readers = reader_counts(module)

    def own(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if nothing else reads it."""
        alone = node.op == "call_module" and self.readers[str(node.target)] == 1
        return self.module.get_submodule(str(node.target)) if alone else None

    def take_from_behind(self, node: fx.Node, found: ChannelMap) -> bool:
        """Fold a map into the layer before it, if that is possible."""
        source, scale, shift = _source(node, found), found.scale, found.shift
        layer = self.own(source)
        if len(source.users) != 1 or not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            return False
        if isinstance(layer, nn.BatchNorm2d) and not layer.affine:
            layer.affine = True
            layer.weight, layer.bias = nn.Parameter(torch.ones(len(scale))), nn.Parameter(torch.zeros(len(scale)))
        if layer.bias is not None or bool(shift.any()):
            _set(layer, "bias", shift if layer.bias is None else layer.bias.double() * scale + shift)
        _set(layer, "weight", layer.weight.double() * _along_outputs(layer, scale))
        self._drop(node, found)
        return True

    def take_from_before(self, node: fx.Node, found: ChannelMap) -> bool:
        """Fold a map into the convolution behind it, if that is possible."""
        conv = self.own(next(iter(node.users))) if len(node.users) == 1 else None
        shifts = bool(found.shift.any())
        if not isinstance(conv, nn.Conv2d) or (shifts and any(sides_of(conv))):
            return False
        weight, groups = conv.weight.double(), conv.groups
        scale, shift = (
            part.reshape(groups, 1, -1).expand(groups, len(weight) // groups, -1).reshape(*weight.shape[:2], 1, 1)
            for part in (found.scale, found.shift)
        )
        if shifts:
            added = (weight * shift).sum((1, 2, 3))
            _set(conv, "bias", added if conv.bias is None else conv.bias.double() + added)
        _set(conv, "weight", weight * scale)
        self._drop(node, found)
        return True

    def make(self, node: fx.Node, found: ChannelMap) -> None:
        """Put a layer in the place of a map."""
        channels = len(found.scale)
        layer = nn.Conv2d(channels, channels, 1, groups=channels)
        _set(layer, "weight", found.scale.reshape(-1, 1, 1, 1))
        _set(layer, "bias", found.shift)
        path = free_path(self.module, found.home)
        attach(self.module, path, layer)
        self.readers[path] = 1
        node.op, node.target = "call_module", path

    def _drop(self, node: fx.Node, found: ChannelMap) -> None:
        node.replace_all_uses_with(_source(node, found))
        self.module.graph.erase_node(node)


def _beside_layer(module: fx.GraphModule, node: fx.Node, maps: Mapping[fx.Node, ChannelMap]) -> bool:
    """Whether a map reads a layer, or a convolution reads it through an activation or not, maybe with maps between."""
    before, behind = node, node
    while before in maps:
        before = _source(before, maps[before])
    while behind in maps or _is_activation(module, behind):
        if len(behind.users) != 1:
            break
        behind = next(iter(behind.users))
    makes = isinstance(called_module(module, before), nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)
    return makes or isinstance(called_module(module, behind), nn.Conv2d)


def _is_activation(module: fx.GraphModule, node: fx.Node) -> bool:
    called = called_module(module, node)
    return called is not None and activation_name(called) is not None


def _source(node: fx.Node, found: ChannelMap) -> fx.Node:
    source = node.args[found.operand]
    assert isinstance(source, fx.Node)
    return source


def _along_outputs(layer: nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d, scale: Tensor) -> Tensor:
    """One number for each channel that a layer makes, so that it multiplies the layer's weights."""
    if isinstance(layer, nn.ConvTranspose2d):  # [in, out of a group, height, width]
        each = scale.reshape(layer.groups, 1, -1).expand(layer.groups, layer.in_channels // layer.groups, -1)
        return each.reshape(layer.in_channels, -1, 1, 1)
    return scale.reshape(-1, *[1] * (layer.weight.dim() - 1))


def _set(layer: nn.Module, name: str, value: Tensor) -> None:
    """Give a layer new weights, in the type of numbers of those that it has, trained if they are."""
    like = layer.weight
    assert isinstance(like, Tensor)
    setattr(layer, name, nn.Parameter(value.detach().to(like), requires_grad=like.requires_grad))
