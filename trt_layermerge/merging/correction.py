"""Writing corrected weights: consumers of a narrowed group make up for what they no longer read."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from trt_layermerge.merging.channel_choice import Reading, corrected
from trt_layermerge.merging.narrowing import narrow
from trt_layermerge.merging.readings import norm_behind
from trt_layermerge.network.channel_group import ChannelGroup


def narrowed_alone(
    module: fx.GraphModule, group: ChannelGroup, readings: Mapping[str, Reading], kept: Sequence[int]
) -> fx.GraphModule:
    """A copy of a network in which one group is narrowed and its consumers are corrected, nothing else changed.

    Args:
        module: The network that the group and the readings are of.
        group: What is narrowed.
        readings: Of its consumers, by their nodes.
        kept: The channels that stay.
    """
    module = fx.GraphModule(copy.deepcopy(module), copy.deepcopy(module.graph))
    for name, reading in readings.items():
        write_corrected(module, name, reading, kept)
    return narrow(module, {group: kept})


def write_corrected(module: fx.GraphModule, name: str, reading: Reading, kept: Sequence[int]) -> None:
    """Give a consumer the weights with which it does without some channels; those for the others are 0 then.

    What its bias needs goes into a norm behind it, if there is one.
    """
    (node,) = (node for node in module.graph.nodes if node.name == name)
    part, norm = module.get_submodule(str(node.target)), norm_behind(module, node)
    weight, shift = corrected(reading, kept)
    assert isinstance(part, nn.Conv2d | nn.Linear)
    shift = shift.reshape(len(part.weight), -1).sum(1)
    with torch.no_grad():
        part.weight.copy_(_from_rows(weight, part))
        if part.bias is not None:
            part.bias.add_(shift)
        elif norm is not None and norm.running_mean is not None:
            norm.running_mean.sub_(shift)
        else:
            part.bias = nn.Parameter(shift.to(part.weight))


def _from_rows(rows: Tensor, part: nn.Conv2d | nn.Linear) -> Tensor:
    """Weights as a layer has them, of those that a reading has: ``[channels, each, outputs]``."""
    outputs, inputs = part.weight.shape[:2]
    taps = part.weight[0, 0].numel()
    whole = rows.shape[2] == outputs
    weight = rows.reshape(inputs, taps, outputs).transpose(1, 2) if whole else rows.reshape(inputs, outputs, taps)
    return weight.transpose(0, 1).reshape(part.weight.shape)
