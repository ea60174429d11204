"""Widths in a problem: channel groups, the widths each may have, and which of them the items of a plan settle.

A channel group is what narrows together: tensors whose channels stand and fall with each other, such as the residual
stream of a stage. Which tensors those are is for whoever makes the problem: here a group is what items name. An item
names the groups that it reads or writes, each with a width, and all items of a plan agree about a group. A group that
no item of a plan names has no tensor left in it: it has no width, costs nothing and is worth nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

GroupWidths = tuple[tuple[str, int], ...]
"""Groups by their keys, each with a number of channels."""


@dataclass(frozen=True, slots=True)
class WidthOption:
    """A width that a group may have.

    Attributes:
        channels: Number of channels.
        value: Importance of narrowing the group to that, in the scale of the method; 0 for all channels.
        latency_ns: What this adds to the latency outside of all blocks, in ns; negative where it saves.
    """

    channels: int
    value: float
    latency_ns: int = 0


@dataclass(frozen=True, slots=True)
class WidthGroup:
    """A channel group with its widths.

    Attributes:
        key: Name of the group, unique in a problem; its meaning is the caller's.
        options: The widths it may have, each once.
    """

    key: str
    options: tuple[WidthOption, ...]

    @property
    def full(self) -> int:
        """The largest number of channels: that of the network as it is."""
        return max(option.channels for option in self.options)


@dataclass(frozen=True, slots=True)
class PlannedWidth:
    """The width of a group in a plan.

    Attributes:
        group: Key of the group.
        channels: Number of channels.
        full: Number of channels that the network has as it is.
        value: As of ``WidthOption``.
        latency_ns: As of ``WidthOption``.
    """

    group: str
    channels: int
    full: int
    value: float
    latency_ns: int = 0


class Sized(Protocol):
    """What names groups with widths and is worth something by itself: an item."""

    @property
    def value(self) -> float:
        """Importance of the choice."""

    @property
    def widths(self) -> GroupWidths:
        """The groups that it reads or writes."""


def planned_widths(groups: Iterable[WidthGroup], items: Iterable[Sized]) -> tuple[PlannedWidth, ...]:
    """The widths that items which agree with each other settle, in the order in which they name the groups first.

    Args:
        groups: All groups that the items name, and maybe more.
        items: The items of a plan, in order.
    """
    known = {
        (group.key, option.channels): PlannedWidth(
            group.key, option.channels, group.full, option.value, option.latency_ns
        )
        for group in groups
        for option in group.options
    }
    settled = {key: channels for item in items for key, channels in item.widths}
    return tuple(known[named] for named in settled.items())


def objective_of(items: Iterable[Sized], widths: Iterable[PlannedWidth]) -> float:
    """Sum of the values of a plan's items and widths: block after block, and with each what it names first.

    Floats are added in the very order in which the solver adds them; ``sum`` rounds differently from Python 3.12 on.
    """
    worth = {width.group: width.value for width in widths}
    total = 0.0
    for item in items:
        gain = item.value
        for key, _ in item.widths:
            gain += worth.pop(key, 0.0)
        total += gain
    return total
