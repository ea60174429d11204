"""How much of a network can be replaced: of all its convolutions, those in a block of several layers with a choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import fx, nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.nesting import Nesting
from trt_layermerge.network.network import Network
from trt_layermerge.network.placing import called_module


def convolutions(network: Network) -> frozenset[str]:
    """Nodes of all convolutions, transposed ones among them, in a chain or not."""
    return frozenset(node.name for node in network.module.graph.nodes if _is_convolution(network, node))


def replaceable(network: Network, choices: Iterable[Choice]) -> frozenset[str]:
    """Nodes of the convolutions that lie in a block of two layers or more of which some choice leaves one or none.

    What a skip leads through counts as a layer where the skip lies whole in the block: the two become one.
    """
    found: set[str] = set()
    nesting, nodes = Nesting(network.module), {node.name: node for node in network.module.graph.nodes}
    for block in {choice.block for choice in choices if choice.kind is not Kind.KEEP}:
        if block.region is not None:
            region = network.regions[block.region]
            inside = nesting.inside(nodes[region.input], nodes[region.output])
            found |= {node.name for node in inside if _is_convolution(network, node)}
        elif len(units := list(_units(network, block))) > 1:
            found |= {name for name in units if _is_convolution(network, nodes[name])}
    return frozenset(found)


def _units(network: Network, block: Block) -> Iterator[str]:
    """First nodes of the layers of a block, and of what the skips inside of it lead through."""
    chain = network.chains[block.chain]
    yield from (layer.first for layer in chain.layers[block.start : block.end])
    for skip in chain.skips:
        if skip.inside(block.start, block.end):
            yield from (unit.first for unit in skip.units)


def irreplaceable(network: Network, choices: Sequence[Choice], limits: Limits) -> dict[str, str]:
    """Why nothing replaces the other convolutions, by their names: why no block does, and why no region."""
    nodes = {node.name: node for node in network.module.graph.nodes}
    nesting, smallest = Nesting(network.module), dict[str, int]()
    for region in sorted(network.regions, key=lambda region: -region.convolutions):
        inside = nesting.inside(nodes[region.input], nodes[region.output])
        smallest |= {node.name: region.convolutions for node in inside}
    missing = convolutions(network) - replaceable(network, choices)
    return {
        str(nodes[name].target): f"{_why_no_block(network, nodes[name])}; {_why_no_region(smallest.get(name), limits)}"
        for name in sorted(missing, key=lambda name: nesting.order[nodes[name]])
    }


def _why_no_block(network: Network, conv: fx.Node) -> str:
    """1. What is transposed, or cannot be merged, is in no chain.

    2. A skip may lead through it that lies whole in no block.
    3. In a chain of several layers, all blocks with another layer in them cut a skip in two.
    4. A chain of a single layer ends for a reason.
    """
    chain = next((one for one in network.chains if any(layer.first == conv.name for layer in one.layers)), None)
    if isinstance(network.module.get_submodule(str(conv.target)), nn.ConvTranspose2d):
        return "transposed, it makes more pixels than it reads"  # 1
    if chain is None:
        alone = {item.after: item.reason for item in network.breaks}
        return alone.get(str(conv.target), "a skip leads through it that no block holds whole")  # 1 and 2
    if len(chain) > 1:
        return "every block with another layer in it would cut a skip in two"  # 3
    return f"the only layer of its chain: {chain.reason}"  # 4


def _why_no_region(smallest: int | None, limits: Limits) -> str:
    if smallest is None:
        return "no region is around it"
    if smallest > limits.max_layers:
        return f"the smallest region around it has {smallest} convolutions, more than {limits.max_layers}"
    return f"no kernel up to {limits.max_kernel}x{limits.max_kernel} takes the place of a region around it"


def _is_convolution(network: Network, node: fx.Node) -> bool:
    part = called_module(network.module, node)
    return isinstance(part, nn.Conv2d | nn.ConvTranspose2d)
