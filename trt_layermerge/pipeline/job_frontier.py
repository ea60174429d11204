"""From a job's tables to the frontier of its plans: the choices that pay, and what each of them costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.blocks.sized_choices import NarrowedGroup, SizedChoice, group_key
from trt_layermerge.errors import TableError
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.candidate import Candidate, MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.frontier import Frontier, solve


class LossRows(Protocol):
    """What choices do to the network: an importance table, or what stands in for one."""

    @property
    def path(self) -> Path:
        """The file, for messages."""

    def get(self, choice: str) -> ImportanceRow | None:
        """The row of a choice."""


def latency_ns(session: Session, choice: Choice) -> int | None:
    """Latency of a choice with all channels, from the profile in ns; ``None`` where it is not known."""
    interval = _interval_ns(session, session.sized[choice][0])
    return None if interval is None else interval[1]


def _interval_ns(session: Session, choice: SizedChoice) -> tuple[int, int, int] | None:
    """Latency of a choice in ns between the ends of its interval, the sums of its operations'."""
    low = median = high = 0
    for signature in choice.signatures:
        timing = session.profile.expected(signature)
        if timing is None:
            return None
        low, median, high = low + timing.ci_low_ns, median + timing.median_ns, high + timing.ci_high_ns
    return low, median, high


def _saved_ns(session: Session, choice: Choice, kept: Mapping[tuple[int, int], int]) -> int:
    """What goes with a region beside its layers, in ns: its gaps as they were timed, less the layers inside of them.

    0 for other blocks, and for gaps that could not be timed: what is not known is not promised.
    """
    if choice.block.region is None:
        return 0
    saved = 0
    for number in session.network.regions[choice.block.region].gaps:
        row = None if number not in session.gap_signatures else session.profile.get(session.gap_signatures[number])
        if row is not None and row.timing is not None:
            layers = sum(kept[layer] for layer in session.network.gaps[number].layers)
            saved += max(0, row.timing.median_ns - layers)
    return saved


def wanted_choices(session: Session, everything: bool = False) -> tuple[Choice, ...]:
    """The choices whose importance is to be measured: those that are worthwhile, or all, while no latency is known."""
    return session.choices if everything or not len(session.profile) else worthwhile(session)


def worthwhile(session: Session) -> tuple[Choice, ...]:
    """The choices that are faster than keeping their layers as they are, and ``keep`` of every layer.

    Others can be in no plan that keeping would not beat, as long as a change does not make the network better.

    Raises:
        TableError: The profile has no latency of a layer that is kept.
    """
    kept = kept_ns(session)

    def pays(choice: Choice) -> bool:
        latency = latency_ns(session, choice)
        keeping = sum(kept[layer] for layer in layers_of(session.network, choice.block)) + _saved_ns(
            session, choice, kept
        )
        return choice.kind is Kind.KEEP or (latency is not None and latency < keeping)

    return tuple(choice for choice in session.choices if pays(choice))


def kept_ns(session: Session) -> dict[tuple[int, int], int]:
    """Latency in ns of each layer that is kept as it is, by chain and number.

    Raises:
        TableError: The profile has none of a layer.
    """
    kept: dict[tuple[int, int], int] = {}
    for choice in session.choices:
        if choice.kind is Kind.KEEP:
            latency = latency_ns(session, choice)
            if latency is None:
                raise TableError(
                    f"profile {session.profile.path} has no latency for layer {choice.block}",
                    hint="run trt-layermerge profile with the same settings first",
                )
            kept[choice.block.chain, choice.block.end] = latency
    return kept


def frontier_of(session: Session, baseline: Timing, table: LossRows | None) -> Frontier:
    """The frontier of a job, from its tables.

    Args:
        session: The job.
        baseline: Latency of the original.
        table: Losses; without them every choice counts as harmless, and only the frontier's fastest plan is right.

    Raises:
        TableError: A table lacks a row that the method needs.
    """
    layers, original = kept_ns(session), baseline.median_ns
    candidates = list(_candidates(session, table, layers))
    kept = sum(layers.values())
    if kept > original:
        # The blocks take longer one by one than the network as a whole: what calling a runtime costs is in each of
        # them. Shares of the network are then the best that is known.
        candidates = [_scaled(item, original, kept) for item in candidates]
        kept = sum(latency * original // kept for latency in layers.values())
    lengths, groups = [len(chain) for chain in session.network.chains], _groups(session, table)
    return solve(session.job.planner.problem(lengths, candidates, original - kept, original, groups))


def _candidates(session: Session, table: LossRows | None, layers: Mapping[tuple[int, int], int]) -> Iterator[Candidate]:
    """The choices that pay, in all combinations of widths whose latency is known."""
    for choice in worthwhile(session):
        saved = _saved_ns(session, choice, layers)
        for number, one in enumerate(session.sized[choice]):
            # What gaps save was timed with all channels; of fewer it is not known, and not promised.
            candidate = _candidate(session, one, table, saved if number == 0 else 0)
            if candidate is not None:
                yield candidate


def _groups(session: Session, table: LossRows | None) -> tuple[MeasuredGroup, ...]:
    """The channel groups with what narrowing them does."""
    return tuple(
        MeasuredGroup(
            group_key(one.group),
            one.group.channels,
            tuple(_width(NarrowedGroup(one.group, channels), table) for channels in one.channels[1:]),
        )
        for one in session.offered
    )


def _width(narrowed: NarrowedGroup, table: LossRows | None) -> MeasuredWidth:
    if table is None:
        return MeasuredWidth(narrowed.channels, 0.0, 0.0)
    row = _row(table, narrowed.key)
    return MeasuredWidth(narrowed.channels, row.loss_before, row.loss_after)


def _row(table: LossRows, key: str) -> ImportanceRow:
    """The row of a choice or a width.

    Raises:
        TableError: There is none.
    """
    row = table.get(key)
    if row is None:
        raise TableError(
            f"importance table {table.path} has no row for {key!r}",
            hint="run trt-layermerge importance with the same settings first",
        )
    return row


def _scaled(item: Candidate, share: int, whole: int) -> Candidate:
    """A candidate with its latency and the ends of its interval, if it has one, multiplied by share / whole."""
    low, high = item.low_ns, item.high_ns
    return replace(
        item,
        latency_ns=item.latency_ns * share // whole,
        low_ns=None if low is None else low * share // whole,
        high_ns=None if high is None else -(-high * share // whole),
    )


def _candidate(session: Session, sized: SizedChoice, table: LossRows | None, saved_ns: int) -> Candidate | None:
    """A choice in one combination of widths; ``None`` where its latency is not known."""
    interval, choice, geometry = _interval_ns(session, sized), sized.choice, sized.executed.geometry
    if interval is None:
        return None
    row = None if table is None or choice.kind is Kind.KEEP else _row(table, choice.key)
    before, after = (0.0, 0.0) if row is None else (row.loss_before, row.loss_after)
    return Candidate(
        choice.block.chain,
        choice.block.start,
        choice.block.end,
        choice.key,
        str(choice.kind),
        interval[1] - saved_ns,
        choice.reducible,
        before,
        after,
        low_ns=interval[0] - saved_ns,
        high_ns=interval[2] - saved_ns,
        kernel=0 if geometry is None else max(geometry.kernel),
        depthwise=geometry is not None and geometry.groups == geometry.in_channels > 1,
        dropped=choice.dropped,
        end_chain=choice.block.end_chain,
        widths=tuple((group_key(session.network.channel_groups[number]), left) for number, left in sized.widths),
    )
