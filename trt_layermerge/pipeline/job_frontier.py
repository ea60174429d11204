"""From a job's tables to the frontier of its plans: the choices that pay, and what each of them costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.blocks.sized_choices import NarrowedGroup, SizedChoice, group_key
from trt_layermerge.errors import TableError
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline.correction_file import kept_correction
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.candidate import Candidate, MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.finding import without_impossible
from trt_layermerge.planning.frontier import Frontier, solve


class LossRows(Protocol):
    """What choices do to the network: an importance table, or what stands in for one."""

    @property
    def path(self) -> Path:
        """The file, for messages."""

    def get(self, choice: str) -> ImportanceRow | None:
        """The row of a choice."""


@dataclass(frozen=True)
class WithinNetwork:
    """What blocks take within their network, of which a profile knows what they take alone.

    Attributes:
        share: Of what a block takes alone.
        operation_ns: What each operation takes alone and not within, in ns.
        weight_ns: The same of each weight.
    """

    share: float = 1.0
    operation_ns: float = 0.0
    weight_ns: float = 0.0

    def ns(self, alone_ns: int, choice: SizedChoice) -> int:
        """Latency of a choice in ns; no less than 0."""
        less = self.operation_ns * operations_of(choice) + self.weight_ns * weights_of(choice)
        return max(0, round(self.share * alone_ns - less))


AS_TIMED = WithinNetwork()


def latency_ns(session: Session, choice: Choice, within: WithinNetwork = AS_TIMED) -> int | None:
    """Latency of a choice with all channels, from the profile in ns; ``None`` where it is not known."""
    interval = _interval_ns(session, session.sized[choice][0], within)
    return None if interval is None else interval[1]


def operations_of(choice: SizedChoice) -> int:
    """How many operations a choice executes."""
    return sum(not one.empty for one in choice.signatures)


def weights_of(choice: SizedChoice) -> int:
    """How many weights its convolutions have."""
    return sum(one.weights for one in choice.signatures)


def _interval_ns(session: Session, choice: SizedChoice, within: WithinNetwork) -> tuple[int, int, int] | None:
    """Latency of a choice in ns between the ends of its interval, the sums of its operations'."""
    low = median = high = 0
    for signature in choice.signatures:
        timing = session.profile.expected(signature)
        if timing is None:
            return None
        low, median, high = low + timing.ci_low_ns, median + timing.median_ns, high + timing.ci_high_ns
    return within.ns(low, choice), within.ns(median, choice), within.ns(high, choice)


def saved_ns(session: Session, choice: Choice, kept: Mapping[tuple[int, int], int]) -> int:
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


def most_saved_ns(session: Session, kept: Mapping[tuple[int, int], int]) -> int:
    """The most that any plan saves by gaps, in ns: regions side by side, on the path that all chains make."""
    first = [0, *accumulate(map(len, session.network.chains))]
    ending: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for choice in session.choices:
        block = choice.block
        end_chain = block.chain if block.end_chain is None else block.end_chain
        ending[first[end_chain] + block.end].add((first[block.chain] + block.start, saved_ns(session, choice, kept)))
    most = [0]
    for layer in range(1, first[-1] + 1):
        most.append(max((most[start] + saved for start, saved in ending[layer]), default=most[-1]))
    return most[-1]


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
        keeping = sum(kept[layer] for layer in layers_of(session.network, choice.block)) + saved_ns(
            session, choice, kept
        )
        return choice.kind is Kind.KEEP or (latency is not None and latency < keeping)

    return tuple(choice for choice in session.choices if pays(choice))


def kept_ns(session: Session, within: WithinNetwork = AS_TIMED) -> dict[tuple[int, int], int]:
    """Latency in ns of each layer that is kept as it is, by chain and number.

    Raises:
        TableError: The profile has none of a layer.
    """
    kept: dict[tuple[int, int], int] = {}
    for choice in session.choices:
        if choice.kind is Kind.KEEP:
            latency = latency_ns(session, choice, within)
            if latency is None:
                raise TableError(
                    f"profile {session.profile.path} has no latency for layer {choice.block}",
                    hint="run trt-layermerge profile with the same settings first",
                )
            kept[choice.block.chain, choice.block.end] = latency
    return kept


def frontier_of(session: Session, baseline: Timing, table: LossRows | None, corrected: bool = True) -> Frontier:
    """The frontier of a job, from its tables.

    Args:
        session: The job.
        baseline: Latency of the original.
        table: Losses; without them every choice counts as harmless, and only the frontier's fastest plan is right.
        corrected: Whether latencies are corrected by what ``profile validate`` found of this network, if it did.

    Raises:
        TableError: A table lacks a row that the method needs.
    """
    original, within = baseline.median_ns, within_network(session, baseline.median_ns, corrected)
    kept = sum(kept_ns(session, within).values())
    lengths, groups = [len(chain) for chain in session.network.chains], _groups(session, table)
    candidates = _candidates(session, table, within)
    problem = session.job.planner.problem(lengths, candidates, original - kept, original, groups)
    return without_impossible(solve(problem))


def within_network(session: Session, original_ns: int, corrected: bool = True) -> WithinNetwork:
    """What blocks take within the network of a job."""
    layers_ns = kept_ns(session)
    parts = sum(layers_ns.values()) + most_saved_ns(session, layers_ns)
    # Where the parts take longer one by one than the network as a whole, what calling a runtime costs is in each of
    # them. Shares of the network are then the best that is known; and no plan saves more than there is.
    share = min(1.0, original_ns / max(parts, 1))
    correction = kept_correction(session) if corrected else None
    if correction is None:
        return WithinNetwork(share)
    layers = [session.sized[choice][0] for choice in session.choices if choice.kind is Kind.KEEP]
    return WithinNetwork(
        (1 - correction.saved) * share,
        correction.removed * original_ns / max(sum(map(operations_of, layers)), 1),
        correction.weights * original_ns / max(sum(map(weights_of, layers)), 1),
    )


def _candidates(session: Session, table: LossRows | None, within: WithinNetwork) -> Iterator[Candidate]:
    """The choices that pay, in all combinations of widths whose latency is known."""
    layers = kept_ns(session)
    for choice in worthwhile(session):
        saved = round(within.share * saved_ns(session, choice, layers))
        for number, one in enumerate(session.sized[choice]):
            interval = _interval_ns(session, one, within)
            if interval is not None:
                # What gaps save was timed with all channels; of fewer it is not known, and not promised.
                yield _candidate(session, one, table, interval, saved if number == 0 else 0)


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


def _candidate(
    session: Session, sized: SizedChoice, table: LossRows | None, interval: tuple[int, int, int], saved_ns: int
) -> Candidate:
    """A choice in one combination of widths."""
    choice, geometry = sized.choice, sized.executed.geometry
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
