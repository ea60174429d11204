"""Narrowing: channels are left out of a network for good, from whatever makes them, passes them on and reads them.

What is left out has no say any more, so that a narrowed network computes what the wide one does when nothing reads
these channels: ``masked`` is that network, and narrowing is proved against it. Making up for what is lost is not done
here: consumers keep the weights that they have.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor, fx, nn

from trt_layermerge.merging.rewrite import stands_for
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.channel_groups import find_channel_groups
from trt_layermerge.network.placing import consumer, operator_name, shaken

Kept = Mapping[ChannelGroup, Sequence[int]]
"""Which channels of a group stay; a group that is not in it stays whole."""

RESHAPES = ("view", "reshape")
"""Functions that are told the shape that they make."""


def narrow(module: fx.GraphModule, kept: Kept) -> fx.GraphModule:
    """A copy of a network without some channels.

    Requires: ``module`` is the network in which the groups were found, or that network with blocks replaced.
    Ensures: it computes what ``masked`` does; nodes keep their names, and those with fewer channels get another
    ``meta["shape"]``.

    Args:
        module: A graph in which every node that holds a tensor has its shape.
        kept: What stays of groups; one that has vanished with the blocks around it is passed over.

    Raises:
        ValueError: No channel of a group stays, or one that it does not have; all must stay here; or a block that was
            left out has made two groups one, of which different channels stay.
    """
    module = fx.GraphModule(copy.deepcopy(module), copy.deepcopy(module.graph))
    nodes = {node.name: node for node in module.graph.nodes}
    for group, channels in _here(module, kept):
        for name in group.nodes:
            _narrow_result(module, nodes[name], group.channels, channels)
        for name in group.consumers:
            part = consumer(module, nodes[name])
            taken = entries_of(channels, group.channels, part.weight.shape[1])
            _take(part, ("weight",), 1, taken)
            setattr(part, "in_channels" if isinstance(part, nn.Conv2d) else "in_features", len(taken))
    return shaken(module)


def masked(module: fx.GraphModule, kept: Kept) -> fx.GraphModule:
    """A copy of a network, of the same shape, in which nothing reads the channels that ``narrow`` leaves out.

    Raises:
        ValueError: As ``narrow``.
    """
    module = fx.GraphModule(copy.deepcopy(module), copy.deepcopy(module.graph))
    nodes = {node.name: node for node in module.graph.nodes}
    for group, channels in _here(module, kept):
        for name in group.consumers:
            part = consumer(module, nodes[name])
            dropped = torch.ones(part.weight.shape[1], dtype=torch.bool)
            dropped[entries_of(channels, group.channels, part.weight.shape[1])] = False
            with torch.no_grad():
                part.weight[:, dropped] = 0
    return module


def entries_of(channels: Sequence[int], of: int, numbers: int) -> Int[Tensor, " taken"]:
    """Where channels lie among ``numbers`` numbers, as many in a row for each of ``of`` channels: of a flat image."""
    each = numbers // of
    return (torch.tensor(channels, dtype=torch.long)[:, None] * each + torch.arange(each)).flatten()


def _here(module: fx.GraphModule, kept: Kept) -> Iterator[tuple[ChannelGroup, tuple[int, ...]]]:
    """The groups of a module and what stays of them, in order."""
    groups, _ = find_channel_groups(module)
    of = {name: group for group in groups for name in group.nodes}
    holds = {name: node.name for node in module.graph.nodes for name in (node.name, *stands_for(node))}
    found: dict[ChannelGroup, tuple[int, ...]] = {}
    for given, channels in kept.items():
        stay = tuple(sorted(set(channels)))
        if not stay or stay[0] < 0 or stay[-1] >= given.channels:
            raise ValueError(f"channels {list(channels)} of the {given.channels} that {given.producers[0]} makes")
        for name in [holds[name] for name in given.nodes if name in holds]:
            if name not in of:
                if len(stay) < given.channels:
                    raise ValueError(f"the channels of {name} must all stay here")
            elif found.setdefault(of[name], stay) != stay:
                raise ValueError(f"{name} has the channels of two groups, of which different ones stay")
    return ((group, stay) for group, stay in found.items() if len(stay) < group.channels)


def _narrow_result(module: fx.GraphModule, node: fx.Node, of: int, channels: Sequence[int]) -> None:
    """Leave channels out of what makes them or passes them on."""
    shape = node.meta["shape"]
    taken = entries_of(channels, of, shape[0])
    node.meta["shape"] = (len(taken), *shape[1:])
    if node.op == "call_function" and operator_name(node) in RESHAPES:
        size = node.args[1]
        assert isinstance(size, Sequence)
        node.args = (node.args[0], [size[0], *node.meta["shape"]])
    if node.op != "call_module":
        return
    part = module.get_submodule(str(node.target))
    if isinstance(part, nn.Conv2d):
        if part.groups > 1:
            part.groups = part.in_channels = len(taken)
        part.out_channels = len(taken)
        _take(part, ("weight", "bias"), 0, taken)
    elif isinstance(part, nn.Linear):
        part.out_features = len(taken)
        _take(part, ("weight", "bias"), 0, taken)
    elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
        part.num_features = len(taken)
        _take(part, ("weight", "bias", "running_mean", "running_var"), 0, taken)
    elif isinstance(part, nn.PReLU) and part.num_parameters > 1:
        part.num_parameters = len(taken)
        _take(part, ("weight",), 0, taken)


def _take(part: nn.Module, names: Sequence[str], axis: int, taken: Tensor) -> None:
    """Leave out of parameters and buffers all but some indices of an axis."""
    for name in names:
        value = getattr(part, name)
        if value is None:
            continue
        fewer = value.detach().index_select(axis, taken.to(value.device)).contiguous()
        if isinstance(value, nn.Parameter):
            setattr(part, name, nn.Parameter(fewer, requires_grad=value.requires_grad))
        else:
            part.register_buffer(name, fewer)
