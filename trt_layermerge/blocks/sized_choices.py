"""Choices with widths: what a choice is for every combination of widths of the channel groups that it touches.

A group that no block of a plan touches has no tensor left, and stays as it is. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.blocks.narrowed_shapes import ends_alike, groups_of, narrowed_choice, narrowed_shapes
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.network import Network

Widths = tuple[tuple[int, int], ...]
"""Channel groups by their numbers, each with a number of channels."""


@dataclass(frozen=True)
class OfferedWidths:
    """A channel group and the widths that it may have.

    Attributes:
        group: The group.
        channels: Numbers of channels, descending; the first is what it has.
    """

    group: ChannelGroup
    channels: tuple[int, ...]


@dataclass(frozen=True)
class NarrowedGroup:
    """A channel group with fewer channels, the only change to a network: what importance has a row of.

    Attributes:
        group: The group.
        channels: How many stay.
    """

    group: ChannelGroup
    channels: int

    @property
    def key(self) -> str:
        """Names it in tables: unique in a network, the same in every run."""
        return f"{group_key(self.group)} {self.channels}"


@dataclass(frozen=True)
class SizedChoice:
    """A choice, and how wide what it reads and writes is.

    Attributes:
        choice: As of the original.
        widths: Of each group that it touches.
        executed: The choice as of the narrowed network.
        signatures: What it executes there.
    """

    choice: Choice
    widths: Widths
    executed: Choice
    signatures: tuple[Signature, ...]


def group_key(group: ChannelGroup) -> str:
    """Names a channel group in problems and plans."""
    return f"g{group.index}"


def widths_of(network: Network, shares: Iterable[float], multiple: int) -> tuple[OfferedWidths, ...]:
    """The channel groups of a network that hold tensors of chains, with the widths that are worth looking at.

    Args:
        network: The network.
        shares: Of the channels of each group, such as 0.5.
        multiple: What numbers of channels are rounded to, the nearest; what the device computes with at once.
    """
    found = []
    for group in network.channel_groups:
        full = group.channels
        rounded = {max(multiple, int(share * full / multiple + 0.5) * multiple) for share in shares}
        fewer = sorted((channels for channels in rounded if channels < full), reverse=True)
        if fewer and group.tensors:
            found.append(OfferedWidths(group, (full, *fewer)))
    return tuple(found)


def sized_choices(
    network: Network, choices: Iterable[Choice], widths: Iterable[OfferedWidths], setting: Setting
) -> tuple[SizedChoice, ...]:
    """Every choice in every combination of widths that it can have.

    What leaves layers out passes channels on as they are. So where it reads one group and writes another, of which
    other channels may stay, both keep all of theirs. So does what is made of shifts through matrices.
    """
    options = {one.group.index: one for one in widths}
    shapes: dict[Widths, Network] = {(): network}
    sized = []
    for choice in choices:
        touched = groups_of(network, choice) if options else ()
        sizes = [options[group.index] for group in touched if group.index in options]
        lowered = lowered_in(network, choice)
        whole = choice.kind is not Kind.KEEP and bool(lowered.shifts or lowered.post_norm)
        passed = choice.kind is Kind.IDENTITY or bool(choice.dropped)
        whole |= passed and not (len(touched) == 1 and ends_alike(network, choice))
        for combination in _combinations(sizes, whole=whole):
            fewer = tuple((number, left) for number, left in combination if left < options[number].channels[0])
            if fewer not in shapes:
                shapes[fewer] = narrowed_shapes(network, dict(fewer))
            try:
                executed = narrowed_choice(network, choice, shapes[fewer])
            except ValueError:
                continue  # its convolution has groups of several channels
            sized.append(SizedChoice(choice, combination, executed, signatures(shapes[fewer], executed, setting)))
    return tuple(sized)


def _combinations(sizes: list[OfferedWidths], *, whole: bool) -> Iterator[Widths]:
    for channels in product(*(one.channels[:1] if whole else one.channels for one in sizes)):
        yield tuple((one.group.index, count) for one, count in zip(sizes, channels, strict=True))
