"""What is to be planned: chains of layers, the choices for their blocks, and what each choice costs and is worth.

A problem knows latencies and importances, not where they come from; ``frontier`` solves it, ``methods`` makes it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from trt_layermerge.errors import InputError
from trt_layermerge.planning.widths import GroupWidths, WidthGroup

CHOICE_KINDS = frozenset({"keep", "merge", "fit", "identity"})
LARGEST_VALUE = 1e100  # sums stay finite
LONGEST_NS = 10**15  # eleven days; sums of so many layers as there will ever be stay exact in int64


@dataclass(frozen=True, slots=True)
class TimedChoice:
    """One choice for one block, and how long it takes: what a measured candidate and an item to plan with share.

    Attributes:
        chain: Index of the chain.
        start: The block is (start, end]: it turns layers start + 1 to end of the chain.
        end: Last layer of the block.
        end_chain: Index of the chain of that last layer, where it is a later one: the block is a region, and takes the
            rest of its first chain, all chains between and the beginning of this one.
        widths: The channel groups that the block reads or writes, each with the width that this latency is of; none
            where nothing is narrowed. A choice is there once for each combination of widths.
        key: Name of the choice; in a problem, it and the widths are unique. Its meaning is the caller's.
        kind: ``keep``, ``merge``, ``fit`` or ``identity``.
        latency_ns: Latency of the block under this choice, in ns, rounded up. Of a region, less what between its layers
            is saved with it, and that may be more.
        low_ns: Lower end of the 95 % confidence interval of the latency; None where it is taken as certain.
        high_ns: Upper end of it.
        kernel: Kernel of the one convolution that is left, 0 for none; None where that is not known.
        depthwise: Whether that convolution is depthwise; None where that is not known.
    """

    chain: int
    start: int
    end: int
    key: str
    kind: str
    latency_ns: int
    low_ns: int | None = field(default=None, kw_only=True)
    high_ns: int | None = field(default=None, kw_only=True)
    kernel: int | None = field(default=None, kw_only=True)
    depthwise: bool | None = field(default=None, kw_only=True)
    end_chain: int | None = field(default=None, kw_only=True)
    widths: GroupWidths = field(default=(), kw_only=True)

    @property
    def last_chain(self) -> int:
        """Index of the chain of the block's last layer."""
        return self.chain if self.end_chain is None else self.end_chain

    @property
    def layers(self) -> int:
        """Number of layers of the block, of a region those of its last chain."""
        return self.end - (self.start if self.end_chain is None else 0)


@dataclass(frozen=True, slots=True)
class Item(TimedChoice):
    """One choice for one block: what it costs and what it is worth.

    Attributes:
        value: Importance of the choice in the scale of the method; larger is better.
        breaks: Layers inside the block after which a new convolution begins though no activation is left there, as
            a method of two stages may plan; for all other items, none.
        parts: Names of the choices between the breaks; none where there are no breaks, and the key says it all.
    """

    value: float
    breaks: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Tile every chain with blocks and pick a choice for each: the largest sum of values under a latency budget.

    Choices that name channel groups agree about the width of each, and each width adds its value and latency once.

    Attributes:
        lengths: Number of layers of each chain.
        items: All choices, in any order.
        fixed_ns: Latency outside of all blocks, in ns; a difference of two measurements, so it may be negative.
        original_ns: Measured end-to-end latency of the original network, in ns.
        method: Name of the method that set the values.
        groups: The channel groups that items name.

    Raises:
        InputError: An item lies outside its chain, is not finite, is negative, shares key and widths, or names a width
            that there is not; or a chain cannot be tiled.
    """

    lengths: tuple[int, ...]
    items: tuple[Item, ...]
    fixed_ns: int
    original_ns: int
    method: str = "custom"
    groups: tuple[WidthGroup, ...] = ()

    def __post_init__(self) -> None:
        """Check everything."""
        if self.original_ns <= 0:
            raise InputError(f"the latency of the original network is {self.original_ns} ns; it must be positive")
        if max(abs(self.fixed_ns), self.original_ns) > LONGEST_NS:
            raise InputError("a latency of more than eleven days cannot be right", hint="latencies are in ns")
        for chain, length in enumerate(self.lengths):
            if length < 1:
                raise InputError(f"chain {chain} has {length} layers; it needs at least one")
        for item in self.items:
            _check(item, self.lengths)
        _check_keys(self.items)
        _check_widths(self.groups, self.items)
        _check_reach(self.lengths, self.items)


def tiling_fault(items: Sequence[Item], lengths: Sequence[int] | None = None) -> str | None:
    """Why items in order do not tile the chains 0, 1, ... block after block, in words; None where they do.

    Args:
        items: The items of a plan.
        lengths: Layers of each chain; None where they are not known, and chains may then end anywhere.
    """
    chain, layer = 0, 0
    ends: list[tuple[int, int]] = []
    for item in items:
        if item.chain == chain + 1 and item.start == 0 and layer:
            ends.append((chain, layer))
            chain, layer = item.chain, 0
        if item.chain != chain:
            return f"{describe(item)} is not in the order of the chains"
        if item.start != layer or not _goes_on(item):
            return f"{describe(item)} does not follow layer {layer}"
        chain, layer = item.last_chain, item.end
    ends += [(chain, layer)] if items else []
    if lengths is not None and (chain + bool(items) != len(lengths) or any(lengths[one] != end for one, end in ends)):
        return f"the chains end at layers {[end for _, end in ends]}, not {list(lengths)}"
    return None


def _goes_on(one: TimedChoice) -> bool:
    """Whether a block has a layer: its end lies behind its start, in its chain or in a later one."""
    return one.start < one.end if one.last_chain == one.chain else one.chain < one.last_chain and one.end > 0


def describe(one: TimedChoice) -> str:
    """A candidate or an item as messages name it."""
    return f"{type(one).__name__.lower()} {one.key!r} of block ({one.start}, {one.end}] in chain {one.chain}"


def check_timed(one: TimedChoice, lengths: Sequence[int]) -> None:
    """See that a choice lies within its chain, and that its latency can be.

    Raises:
        InputError: It does not, or cannot; or there is no such kind of choice.
    """
    if not 0 <= one.chain < len(lengths):
        raise InputError(f"{describe(one)}: there are {len(lengths)} chains, numbered from 0")
    if not 0 <= one.last_chain < len(lengths):
        raise InputError(f"{describe(one)}: there are {len(lengths)} chains, and it ends in chain {one.last_chain}")
    if not (0 <= one.start <= lengths[one.chain] and one.end <= lengths[one.last_chain] and _goes_on(one)):
        raise InputError(f"{describe(one)}: the chain has layers 1 to {lengths[one.last_chain]}")
    if one.kind not in CHOICE_KINDS:
        raise InputError(f"{describe(one)}: kind {one.kind!r} is none of {', '.join(sorted(CHOICE_KINDS))}")
    if not _least(one) <= one.latency_ns <= LONGEST_NS:
        raise InputError(f"{describe(one)}: latency {one.latency_ns} ns is not between 0 and eleven days")
    if (one.low_ns, one.high_ns) != (None, None):
        _check_interval(one)


def _check(item: Item, lengths: Sequence[int]) -> None:
    check_timed(item, lengths)
    if not abs(item.value) <= LARGEST_VALUE:
        raise InputError(f"{describe(item)}: value {item.value} is not finite, or absurdly large")
    if (item.breaks or item.parts) and not _in_parts(item):
        raise InputError(f"{describe(item)}: its breaks {list(item.breaks)} and parts {list(item.parts)} do not fit")


def _check_interval(one: TimedChoice) -> None:
    low, high = one.low_ns, one.high_ns
    if low is None or high is None or not _least(one) <= low <= one.latency_ns <= high <= LONGEST_NS:
        raise InputError(f"{describe(one)}: latency {one.latency_ns} ns is not within its interval {low} to {high} ns")


def _in_parts(item: Item) -> bool:
    ends = (item.start, *item.breaks, item.end)
    return all(a < b for a, b in pairwise(ends)) and len(item.parts) == len(item.breaks) + 1


def _check_keys(items: Iterable[Item]) -> None:
    seen: dict[tuple[str, GroupWidths], Item] = {}
    for item in items:
        other = seen.setdefault((item.key, item.widths), item)
        if other is not item:
            raise InputError(f"{describe(item)}: its key is also that of block ({other.start}, {other.end}]")


def _check_widths(groups: Iterable[WidthGroup], items: Iterable[Item]) -> None:
    known: dict[str, set[int]] = {}
    for group in groups:
        channels = [option.channels for option in group.options]
        if group.key in known:
            raise InputError(f"group {group.key!r} is there twice")
        if len(set(channels)) < len(channels) or min(channels, default=0) < 1:
            raise InputError(f"group {group.key!r}: its widths are {channels}; each is 1 or more, and there once")
        for option in group.options:
            if not (abs(option.value) <= LARGEST_VALUE and abs(option.latency_ns) <= LONGEST_NS):
                raise InputError(f"group {group.key!r} of {option.channels} channels: not finite, or absurdly large")
        known[group.key] = set(channels)
    for item in items:
        if len({key for key, _ in item.widths}) < len(item.widths):
            raise InputError(f"{describe(item)}: it names a group twice")
        for key, width in item.widths:
            if width not in known.get(key, ()):
                raise InputError(f"{describe(item)}: there is no group {key!r} of {width} channels")


def _least(one: TimedChoice) -> int:
    """The least latency that can be: a region may save more than what takes its place costs."""
    return 0 if one.end_chain is None else -LONGEST_NS


def _check_reach(lengths: Sequence[int], items: Iterable[Item]) -> None:
    first = [0, *accumulate(lengths)]  # numbers of the layers, all chains laid end to end
    reached = {0}
    for start, end in sorted({(first[one.chain] + one.start, first[one.last_chain] + one.end) for one in items}):
        if start in reached:
            reached.add(end)
    if first[-1] not in reached:
        chain = bisect_right(first, max(reached)) - 1
        layer = max(reached) - first[chain]
        raise InputError(
            f"chain {chain} cannot be tiled: no block that begins after layer {layer} reaches layer {layer + 1}",
            hint="every layer needs at least its 'keep' choice",
        )
