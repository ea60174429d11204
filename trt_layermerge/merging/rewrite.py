"""Rewriting a network by a plan: every chosen block becomes one module, or nothing."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping

from torch import fx, nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.lowering import Lowering, lowered_in
from trt_layermerge.network.network import Network
from trt_layermerge.network.placing import shaken

STANDS_FOR = "stands_for"
"""Under this name, the ``meta`` of a node tells which nodes of the original it has taken the place of."""


def module_name(block: Block) -> str:
    """Name of the module that takes a block's place in the rewritten network."""
    if block.region is not None:
        return f"merged_region_{block.region}"
    return f"merged_{block.chain}_{block.start}_{block.end}"


def rewrite(network: Network, modules: Mapping[Choice, nn.Module | None], *, share: bool = False) -> fx.GraphModule:
    """The network with each block replaced.

    Requires: the blocks do not overlap; ``keep`` choices are ignored, ``identity`` ones have no module.
    Ensures: nodes outside of the blocks keep their names, modules and order; what holds a block's output tells its
    name; what nothing reads is gone; the original is not changed.

    Args:
        network: The original.
        modules: What takes the place of each block, from its input tensor, behind the pre-norm of its first layer, and
            its shifts, to its result before outer skips and activation.
        share: Share the weights of untouched layers with the original instead of copying them.
    """
    source = network.module if share else copy.deepcopy(network.module)
    module = fx.GraphModule(source, copy.deepcopy(source.graph))
    # From the last block to the first: the nodes that a block reads are then still the original's.
    for choice in sorted(modules, key=lambda choice: choice.block, reverse=True):
        if choice.kind is not Kind.KEEP:
            _replace(module, lowered_in(network, choice), module_name(choice.block), modules[choice])
    return shaken(module)


def _replace(module: fx.GraphModule, lowered: Lowering, name: str, replacement: nn.Module | None) -> None:
    graph = module.graph
    nodes = {node.name: node for node in graph.nodes}
    old, new = nodes[lowered.writes], nodes[lowered.reads]
    with graph.inserting_before(old.next):
        if replacement is not None:
            module.add_submodule(name, replacement)
            new = _like(graph.call_module(name, (new, *(nodes[shift.node] for shift in lowered.shifts))), old)
        for skip in lowered.skips:
            new = _like(graph.call_function(operator.add, (new, nodes[skip.operand])), old)
        if lowered.act is not None:
            new = _like(graph.call_module(str(nodes[lowered.act].target), (new,)), old)
        for skip in lowered.late_skips:
            new = _like(graph.call_function(operator.add, (new, nodes[skip.operand])), old)
    new.meta[STANDS_FOR] = (*stands_for(new), old.name, *stands_for(old))
    old.replace_all_uses_with(new)


def stands_for(node: fx.Node) -> tuple[str, ...]:
    """The nodes of the original that a node has taken the place of: none, or the outputs of replaced blocks."""
    found: tuple[str, ...] = node.meta.get(STANDS_FOR, ())
    return found


def _like(new: fx.Node, old: fx.Node) -> fx.Node:
    new.meta["shape"] = old.meta["shape"]
    return new
