"""From a job's tables to the frontier of its plans: the choices that pay, and what each of them costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.errors import TableError
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.frontier import Frontier, solve


class LossRows(Protocol):
    """What choices do to the network: an importance table, or what stands in for one."""

    @property
    def path(self) -> Path:
        """The file, for messages."""

    def get(self, choice: str) -> ImportanceRow | None:
        """The row of a choice."""


def latency_ns(session: Session, choice: Choice) -> int | None:
    """Latency of a choice from the profile in ns; ``None`` where it is not known."""
    interval = _interval_ns(session, choice)
    return None if interval is None else interval[1]


def _interval_ns(session: Session, choice: Choice) -> tuple[int, int, int] | None:
    """Latency of a choice in ns between the ends of its interval, the sums of its operations'."""
    low = median = high = 0
    for signature in session.signatures(choice):
        row = session.profile.get(signature)
        if row is None or row.timing is None:
            return None
        low, median, high = low + row.timing.ci_low_ns, median + row.timing.median_ns, high + row.timing.ci_high_ns
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
    choices, layers = worthwhile(session), kept_ns(session)
    candidates = [_candidate(session, choice, table, _saved_ns(session, choice, layers)) for choice in choices]
    original, kept = baseline.median_ns, _kept_ns(candidates)
    if kept > original:
        # The blocks take longer one by one than the network as a whole: what calling a runtime costs is in each of
        # them. Shares of the network are then the best that is known.
        candidates = [_scaled(item, original, kept) for item in candidates]
        kept = _kept_ns(candidates)
    lengths = [len(chain) for chain in session.network.chains]
    return solve(session.job.planner.problem(lengths, candidates, original - kept, original))


def _scaled(item: Candidate, share: int, whole: int) -> Candidate:
    """A candidate with its latency and the ends of its interval, if it has one, multiplied by share / whole."""
    low, high = item.low_ns, item.high_ns
    return replace(
        item,
        latency_ns=item.latency_ns * share // whole,
        low_ns=None if low is None else low * share // whole,
        high_ns=None if high is None else -(-high * share // whole),
    )


def _kept_ns(candidates: Iterable[Candidate]) -> int:
    return sum(item.latency_ns for item in candidates if item.kind == Kind.KEEP)


def _candidate(session: Session, choice: Choice, table: LossRows | None, saved_ns: int) -> Candidate:
    row = None if table is None else table.get(choice.key)
    if row is None and table is not None and choice.kind is not Kind.KEEP:
        raise TableError(
            f"importance table {table.path} has no row for {choice.key!r}",
            hint="run trt-layermerge importance with the same settings first",
        )
    interval = _interval_ns(session, choice)
    assert interval is not None  # worthwhile() left only those
    before, after = (0.0, 0.0) if row is None else (row.loss_before, row.loss_after)
    geometry = choice.geometry
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
    )
