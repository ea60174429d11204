"""Filling a profile only as far as the best plan for one budget rests on it.

Rows that are not measured are taken at the lower end of what is expected of them (``latency.row_bounds``). Under such
latencies the best plan is at least as good as any plan is. Where it rests on measured rows alone it can be had, so it
is the best: no other row can change it, unless one is faster than its bound. Otherwise its rows are measured, and those
of the plan that is likely the best; and so on. Layers as they are, gaps and the original come first, for every
prediction rests on them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.gap_signature import AnySignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InfeasibleBudgetError
from trt_layermerge.latency.measure import estimate_seconds, missing
from trt_layermerge.latency.profile import ProfileRow
from trt_layermerge.latency.row_bounds import Prior, RowBound, bound_rows
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline.job_frontier import LossRows, frontier_of, worthwhile
from trt_layermerge.pipeline.measuring import baseline_stage
from trt_layermerge.pipeline.profiling import measure_rows, wanted_signatures
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import sized_in
from trt_layermerge.planning.plan import Plan
from trt_layermerge.progress import Reporter


@dataclass(frozen=True)
class BudgetedProfile:
    """What was measured for a budget, and what that settles.

    Attributes:
        plan: The best plan by what is measured; ``None`` where the time was up before there was one.
        settled: Whether no unmeasured row can change it, unless it is faster than its bound.
        wanted: How many operations a whole profile of the network has.
        measured: How many rows were measured now.
        unmeasured: How many of the wanted rows are left unmeasured.
        bounded: How many rows had bounds before they were measured.
        held: How many of them lay at or above their lower bound, which is what settling rests on.
        saved_seconds: What measuring the rest would take.
    """

    plan: Plan | None
    settled: bool
    wanted: int
    measured: int
    unmeasured: int
    bounded: int
    held: int
    saved_seconds: float


def profile_for_budget(
    session: Session,
    losses: LossRows,
    reporter: Reporter,
    prior: Prior | None = None,
    max_seconds: float | None = None,
) -> BudgetedProfile:
    """Measure what the best plan for the job's budget rests on, and no more.

    Args:
        session: The job.
        losses: Its importance table.
        reporter: Told of every row.
        prior: An estimate of the device, where there is one.
        max_seconds: Time after which no group of operations is begun any more; ``None`` for no limit.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, even if all that is not measured is as fast as its bound.
        TableError: ``losses`` lacks a choice that is faster than keeping its layers.
    """
    return _Search(session, losses, reporter, prior, max_seconds).done()


class _Search:
    """The search while it goes on."""

    def __init__(
        self, session: Session, losses: LossRows, reporter: Reporter, prior: Prior | None, max_seconds: float | None
    ) -> None:
        self.session, self.losses, self.reporter, self.prior = session, losses, reporter, prior
        self._began, self._most = time.monotonic(), max_seconds
        self._bounds: dict[str, RowBound] = {}
        self.measured = self.bounded = self.held = 0

    def done(self) -> BudgetedProfile:
        """Search until the plan is settled, or the time is up."""
        self.reporter.stage("profile")
        if not self._measure(self._first()):
            return self._outcome(None, settled=False)
        baseline = baseline_stage(self.session, self.reporter)
        budget_ns = self.session.job.budget.nanoseconds(baseline.median_ns)
        self.reporter.stage("profile")
        while True:
            lacking = self._lacking()
            hopeful = self._plan(baseline, budget_ns, "low_ns", lacking)
            needed = self._unmeasured([*self._operations(hopeful), *self._measurable(lacking)])
            if not needed:
                return self._outcome(hopeful, settled=True)
            with suppress(InfeasibleBudgetError):  # of what is likely; what is possible has a plan
                likely = self._plan(baseline, budget_ns, "likely_ns", lacking)
                needed += self._unmeasured(self._operations(likely))
            if not self._measure(needed):
                return self._outcome(None, settled=False)

    def _first(self) -> list[AnySignature]:
        session = self.session
        kept = (choice for choice in session.choices if choice.kind is Kind.KEEP)
        first = [one for choice in kept for one in session.sized[choice][0].signatures]
        return [*first, *session.gap_signatures.values()]

    @cached_property
    def _wanted(self) -> dict[str, AnySignature]:
        wanted = [*wanted_signatures(self.session), *self._measurable(self.session.choices)]
        return {one.key: one for one in wanted if not one.empty}

    def _unmeasured(self, signatures: Iterable[AnySignature]) -> list[AnySignature]:
        """Those that the profile has no row of; one that failed has one, and is in no plan."""
        return [one for one in signatures if not one.empty and self.session.profile.get(one) is None]

    def _measure(self, signatures: Sequence[AnySignature]) -> bool:
        """Measure rows; ``False`` where the time was up before all were."""
        session, pending = self.session, missing(signatures, self.session.profile, self.session.job.policy)
        left = None if self._most is None else self._most - (time.monotonic() - self._began)
        measured = measure_rows([session], pending, self.reporter.progress, left)
        self.measured += measured
        for one in pending:
            row = session.profile.get(one)
            if one.key in self._bounds and row is not None and row.timing is not None:
                self.bounded += 1
                self.held += self._bounds[one.key].low_ns <= row.timing.median_ns
        unknown = [one for one in self._unmeasured(self._wanted.values()) if isinstance(one, Signature)]
        self._bounds = bound_rows(session.profile, unknown, self.prior)
        return measured == len(pending)

    def _supposed(self, which: str) -> Session:
        """The session with rows that are not measured supposed at one end of their bounds."""
        rows = (_supposed_row(self._wanted[key], getattr(bound, which)) for key, bound in self._bounds.items())
        return replace(self.session, profile=self.session.profile.supposing(rows))

    def _plan(self, baseline: Timing, budget_ns: int, which: str, without: Collection[Choice]) -> Plan:
        """The best plan without some choices, with rows that are not measured at one end of their bounds."""
        supposed = self._supposed(which)
        choices = tuple(choice for choice in supposed.choices if choice not in without)
        return frontier_of(replace(supposed, choices=choices), baseline, self.losses).best(budget_ns)

    def _lacking(self) -> set[Choice]:
        """Choices without importance that are not measured and may be faster than keeping their layers.

        Whether they are decides whether the table lacks them; a whole profile would tell, and so they are measured.
        """
        hopeful = worthwhile(self._supposed("low_ns"))
        unvalued = (one for one in hopeful if one.kind is not Kind.KEEP and self.losses.get(one.key) is None)
        return {one for one in unvalued if self._unmeasured(self.session.sized[one][0].signatures)}

    def _operations(self, plan: Plan) -> list[AnySignature]:
        """What a plan executes."""
        return [one for sized in sized_in(self.session, plan) for one in sized.signatures]

    def _measurable(self, choices: Iterable[Choice]) -> list[AnySignature]:
        """What choices execute, of all widths."""
        return [one for choice in choices for sized in self.session.sized[choice] for one in sized.signatures]

    def _outcome(self, plan: Plan | None, settled: bool) -> BudgetedProfile:
        session, unmeasured = self.session, self._unmeasured(self._wanted.values())
        seconds = estimate_seconds(unmeasured, session.profile, session.job.policy)
        counts = (len(self._wanted), self.measured, len(unmeasured), self.bounded, self.held)
        return BudgetedProfile(plan, settled, *counts, seconds)


def _supposed_row(signature: AnySignature, latency_ns: int) -> ProfileRow:
    timing = Timing(latency_ns, latency_ns, latency_ns, latency_ns, latency_ns, 0.0, 0)
    return ProfileRow(signature, timing, "degraded", "not measured: a bound")
