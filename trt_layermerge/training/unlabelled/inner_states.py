"""What replaced blocks make of data is to be near to what they made in the original: hints for training without labels.

A network's outputs say little to a block that lies deep in it, the more so where images are few. So the outputs of
replaced blocks are compared, too (Romero et al., FitNets, arXiv 1412.6550, have it for one layer in the middle).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.rewrite import stands_for
from trt_layermerge.network.network import Network
from trt_layermerge.network.outputs import output_node

WEIGHT = 1.0
"""Of the mean over all blocks: blocks that miss all of their variance weigh as much as one output that does."""


@dataclass(frozen=True)
class Observed:
    """What is trained in place of a network and its teacher.

    Attributes:
        student: Returns what its replaced blocks make behind its outputs; shares its weights with the network.
        teacher: Returns what the original has in their places.
    """

    student: fx.GraphModule
    teacher: fx.GraphModule


def observe_blocks(network: Network, student: fx.GraphModule, choices: Iterable[Choice]) -> Observed:
    """Look into a network whose blocks were replaced.

    Args:
        network: The original.
        student: With the choices executed.
        choices: Of the plan.
    """
    found = {writes: node for node in student.graph.nodes for writes in stands_for(node)}
    shapes = {node.name: node.meta.get("shape") for node in network.module.graph.nodes}
    replaced = [lowered_in(network, choice).writes for choice in choices if choice.kind in (Kind.MERGE, Kind.FIT)]
    # A narrowed tensor has other channels than the original's.
    names = [name for name in replaced if name in found and found[name].meta.get("shape") == shapes[name]]
    teacher = fold_norms(_returning(network.module, names))
    return Observed(_returning(student, [found[name].name for name in names]), teacher)


def inner_error(state: Tensor, original: Tensor) -> Tensor:
    """Mean square of the difference by the variance of the original's tensor in the batch, a scalar."""
    return (state - original).square().mean() / original.var(correction=0).clamp_min(torch.finfo(original.dtype).tiny)


def _returning(module: fx.GraphModule, names: Iterable[str]) -> fx.GraphModule:
    """The same network with the values of nodes behind its outputs; it shares all weights."""
    part = fx.GraphModule(module, copy.deepcopy(module.graph))
    nodes = {node.name: node for node in part.graph.nodes}
    output = output_node(part.graph)
    outputs = output.args[0] if isinstance(output.args[0], (tuple, list)) else output.args
    output.args = ((*outputs, *(nodes[name] for name in names)),)
    part.recompile()
    return part
