"""A network's shapes with fewer channels: what chains, regions and choices are once groups are narrowed. Torch-free.

Nothing but numbers changes: layers, skips and nodes keep their names, so that what is worked out on the original, a
lowering or a signature, is worked out on the narrowed one by the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.lowering import Lowering, lowered_in
from trt_layermerge.network.chain import Chain, ImageShape, Layer, Skip, Unit
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network
from trt_layermerge.network.region import Region


def narrowed_shapes(network: Network, widths: Mapping[int, int]) -> Network:
    """The network with so many channels in some of its groups; its module stays what it is.

    Args:
        network: The original.
        widths: Channels of groups, by their numbers; all others keep theirs.
    """
    fewer = {node: channels for number, channels in widths.items() for node in network.channel_groups[number].nodes}
    chains = tuple(narrowed_chain(chain, fewer) for chain in network.chains)
    regions = tuple(_region(region, fewer) for region in network.regions)
    return replace(network, chains=chains, regions=regions)


def narrowed_choice(network: Network, choice: Choice, narrowed: Network) -> Choice:
    """A choice of the original as one of the network with narrowed shapes.

    Raises:
        ValueError: Its convolution has groups of several channels, and cannot have fewer.
    """
    if choice.geometry is None:
        return choice
    inputs, outputs = ends(narrowed, choice)
    if ends(network, choice) == (inputs, outputs):
        return choice
    return replace(choice, geometry=narrowed_geometry(choice.geometry, inputs, outputs))


def ends(network: Network, choice: Choice) -> tuple[int, int]:
    """Channels of the tensors that a choice's block begins and ends at."""
    block = choice.block
    if block.region is not None:
        region = network.regions[block.region]
        return region.input_shape[0], region.output_shape[0]
    chain = network.chains[block.chain]
    return chain.shape(block.start)[0], chain.shape(block.end)[0]


def groups_of(network: Network, choice: Choice) -> tuple[ChannelGroup, ...]:
    """The channel groups that a choice reads or writes, each once, in order of execution.

    They are those of both ends of its block, and of the tensors that skips beside it lead from.
    """
    by_node = {node: group for group in network.channel_groups for node in group.nodes}
    found = (by_node.get(node) for node in _tensors(network, choice, lowered_in(network, choice)))
    return tuple(dict.fromkeys(group for group in found if group is not None))


def ends_alike(network: Network, choice: Choice) -> bool:
    """Whether a choice's block begins and ends in one channel group."""
    first, *_, last = _tensors(network, choice, lowered_in(network, choice))
    return any(first in group.nodes and last in group.nodes for group in network.channel_groups)


def _tensors(network: Network, choice: Choice, lowered: Lowering) -> tuple[str, ...]:
    block = choice.block
    if block.region is not None:
        region = network.regions[block.region]
        return region.input, region.output
    chain = network.chains[block.chain]
    beside = (chain.tensor(skip.start) for skip in (*lowered.skips, *lowered.late_skips))
    return chain.tensor(block.start), *beside, chain.tensor(block.end)


def narrowed_chain(chain: Chain, fewer: Mapping[str, int]) -> Chain:
    """The chain with so many channels in some of its tensors.

    Args:
        chain: The chain.
        fewer: Channels of tensors, by their nodes; those on both sides of what takes channel by channel are equal.
    """

    def channels(index: int) -> int:
        return fewer.get(chain.tensor(index), chain.shape(index)[0])

    layers = tuple(_layer(layer, channels(layer.index - 1), channels(layer.index)) for layer in chain.layers)
    skips = tuple(_skip(skip, channels(skip.start), channels(skip.end)) for skip in chain.skips)
    return replace(chain, layers=layers, skips=skips)


def narrowed_geometry(geometry: Geometry, inputs: int, outputs: int) -> Geometry:
    """A convolution of so many channels: one that takes channel by channel, or all of them, stays what it is.

    Raises:
        ValueError: It has groups of several channels, or takes channel by channel and the two numbers differ.
    """
    if (inputs, outputs) == (geometry.in_channels, geometry.out_channels):
        return geometry
    if _by_channel(geometry) and inputs == outputs:
        return replace(geometry, in_channels=inputs, out_channels=outputs, groups=inputs)
    if geometry.groups == 1:
        return replace(geometry, in_channels=inputs, out_channels=outputs)
    raise ValueError(f"{geometry} cannot have {inputs} channels in and {outputs} out")


def _layer(layer: Layer, inputs: int, outputs: int) -> Layer:
    return replace(
        layer,
        geometry=narrowed_geometry(layer.geometry, inputs, outputs),
        input_shape=_with(inputs, layer.input_shape),
        output_shape=_with(outputs, layer.output_shape),
    )


def _skip(skip: Skip, current: int, last: int) -> Skip:
    mixing = [number for number, unit in enumerate(skip.units) if not _by_channel(unit.geometry)]
    units = list[Unit]()
    for number, unit in enumerate(skip.units):
        outputs = current
        if number in mixing:
            outputs = last if number == mixing[-1] else unit.geometry.out_channels
        units.append(replace(unit, geometry=narrowed_geometry(unit.geometry, current, outputs)))
        current = outputs
    return replace(skip, units=tuple(units))


def _region(region: Region, fewer: Mapping[str, int]) -> Region:
    return replace(
        region,
        input_shape=_with(fewer.get(region.input, region.input_shape[0]), region.input_shape),
        output_shape=_with(fewer.get(region.output, region.output_shape[0]), region.output_shape),
    )


def _by_channel(geometry: Geometry) -> bool:
    return geometry.groups == geometry.in_channels == geometry.out_channels


def _with(channels: int, shape: ImageShape) -> ImageShape:
    return channels, *shape[1:]
