"""How much of a network can be replaced: of all its convolutions, those in a block of several layers with a choice."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.network.nesting import Nesting
from trt_layermerge.network.network import Network


def convolutions(network: Network) -> frozenset[str]:
    """Nodes of all convolutions, transposed ones among them, in a chain or not."""
    return frozenset(node.name for node in network.module.graph.nodes if _is_convolution(network, node))


def replaceable(network: Network, choices: Iterable[Choice]) -> frozenset[str]:
    """Nodes of the convolutions that lie in a block of two layers or more of which some choice leaves one or none."""
    found: set[str] = set()
    nesting, nodes = Nesting(network.module), {node.name: node for node in network.module.graph.nodes}
    for block in {choice.block for choice in choices if choice.kind is not Kind.KEEP}:
        if block.region is not None:
            region = network.regions[block.region]
            inside = nesting.inside(nodes[region.input], nodes[region.output])
            found |= {node.name for node in inside if _is_convolution(network, node)}
        elif len(block) > 1:
            layers = network.chains[block.chain].layers[block.start : block.end]
            found |= {layer.first for layer in layers if _is_convolution(network, nodes[layer.first])}
    return frozenset(found)


def _is_convolution(network: Network, node: fx.Node) -> bool:
    part = network.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
