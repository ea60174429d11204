"""Widths in a problem and in a plan: channel groups, and the widths that each may have.

A channel group is what narrows together: tensors whose channels stand and fall with each other, such as the residual
stream of a stage. Which tensors those are is for whoever makes the problem: here a group is what items name. An item
names the groups that it reads or writes, each with a width, and all items of a plan agree about a group. A group that
no item of a plan names has no tensor left in it: it has no width, costs nothing and is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        kept: Which channels stay, where that is known.
    """

    group: str
    channels: int
    full: int
    value: float
    latency_ns: int = 0
    kept: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """Names group and width, as importance tables do."""
        return f"{self.group} {self.channels}"
