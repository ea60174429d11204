"""Rewriting a network by a plan: every chosen block becomes one module, or nothing."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping

from torch import fx, nn

from trt_layermerge.blocks.bottleneck import as_seen
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.compose import late_skips, outer_skips, shifted_layers
from trt_layermerge.blocks.cost import drops_branch, redundant_activation
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.network import Network


def module_name(block: Block) -> str:
    """Name of the module that takes a block's place in the rewritten network."""
    return f"merged_{block.chain}_{block.start}_{block.end}"


def rewrite(network: Network, modules: Mapping[Choice, nn.Module | None], *, share: bool = False) -> fx.GraphModule:
    """The network with each block replaced.

    Requires: the blocks do not overlap; ``keep`` choices are ignored, ``identity`` ones have no module.
    Ensures: nodes outside of the blocks keep their names, modules and order; what nothing reads is gone; the original
    is not changed.

    Args:
        network: The original.
        modules: What takes the place of each block, from its input tensor, behind the front of its first layer, and
            the shifts of the layers that it keeps, to its result before outer skips and activation.
        share: Share the weights of untouched layers with the original instead of copying them.
    """
    source = network.module if share else copy.deepcopy(network.module)
    module = fx.GraphModule(source, copy.deepcopy(source.graph))
    # From the last block to the first: the nodes that a block reads are then still the original's.
    for choice in sorted(modules, key=lambda choice: choice.block, reverse=True):
        if choice.kind is not Kind.KEEP:
            _replace(module, as_seen(network.chains[choice.block.chain], choice.place), choice, modules[choice])
    return tidy(module)


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """A module with only those nodes and submodules that its output depends on."""
    module.graph.eliminate_dead_code()
    module.graph.lint()
    return fx.GraphModule(module, module.graph)


def _replace(module: fx.GraphModule, chain: Chain, choice: Choice, replacement: nn.Module | None) -> None:
    graph, block = module.graph, choice.block
    nodes = {node.name: node for node in graph.nodes}
    last = chain.layers[block.end - 1]
    start = chain.tensor(block.start) if choice.emptied else chain.read_by(block.start + 1)
    old, new = nodes[last.output], nodes[start]
    if drops_branch(chain, choice):
        old.replace_all_uses_with(new)
        return
    with graph.inserting_before(old.next):
        if replacement is not None:
            module.add_submodule(module_name(block), replacement)
            shifts = [nodes[layer.shift] for layer in shifted_layers(chain, choice.kept) if layer.shift is not None]
            new = _like(graph.call_module(module_name(block), (new, *shifts)), old)
        for skip in outer_skips(chain, block, emptied=choice.emptied):
            new = _like(graph.call_function(operator.add, (new, nodes[skip.operand])), old)
        if last.act is not None and not redundant_activation(chain, choice):
            new = _like(graph.call_module(str(nodes[last.act].target), (new,)), old)
        for skip in late_skips(chain, block):
            new = _like(graph.call_function(operator.add, (new, nodes[skip.operand])), old)
    old.replace_all_uses_with(new)


def _like(new: fx.Node, old: fx.Node) -> fx.Node:
    new.meta["shape"] = old.meta["shape"]
    return new
