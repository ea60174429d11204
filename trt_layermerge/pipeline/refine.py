"""Deciding between plans by measurement: the best around the budget are executed, timed interleaved, and evaluated.

A plan's latency and loss are predicted as sums over its blocks, and that latencies and losses add up is an assumption.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

from trt_layermerge.log import record
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measured_plans import MeasuredPlans, measure_plans
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import decide, kept_plan, tables_stage, with_kept
from trt_layermerge.planning.plan import Plan, PlanFile, Refined
from trt_layermerge.progress import Reporter

_LOG = logging.getLogger(__name__)


def refine_stage(session: Session, reporter: Reporter) -> PlanFile:
    """All stages up to the plan, which measurement decides for; one that was decided for before is kept.

    Raises:
        LayerMergeError: See the stages; or a journal is damaged.
    """
    if (file := kept_plan(session)) is not None:
        return file
    job = session.job
    baseline, table = tables_stage(session, reporter)
    reporter.stage("solve")
    around = frontier_of(session, baseline, table).around(job.budget.nanoseconds(baseline.median_ns), job.refine)
    plans = tuple(with_kept(plan, table) for plan in around)
    reporter.stage("refine")
    measured = MeasuredPlans.open(job.refine_file(session.fingerprint), session.fingerprint)
    measure_plans(session, plans, measured, table, reporter)
    refined = ranked(job, plans, measured)
    best = next(plan for plan, one in zip(plans, refined, strict=True) if one.chosen)
    for one in refined:
        message = "plan %d measured %.4g ms, held-out loss %.4g%s"
        chosen_one = ", chosen" if one.chosen else ""
        record(_LOG.info, "refined", message, one.rank, one.measured_ns / 1e6, one.loss, chosen_one, **asdict(one))
    return decide(session, best, table, refined)


def ranked(job: Job, plans: Sequence[Plan], measured: MeasuredPlans) -> tuple[Refined, ...]:
    """The plans with their figures, and the first by measurement chosen.

    Those whose measured latency keeps the budget come first, by loss; then the others, by latency: so if none keeps it
    the fastest is chosen. A budget that is a share is one of the original as it was timed interleaved with the plan.
    """

    def place(plan: Plan) -> tuple[bool, float, float]:
        executed, timed = measured.measurement(plan)
        loss = executed.loss
        latency = timed.measured_ns / timed.original_ns
        exceeds = timed.measured_ns > job.budget.nanoseconds(timed.original_ns)
        return (exceeds, latency, loss) if exceeds else (exceeds, loss, latency)

    order = sorted(range(len(plans)), key=lambda index: place(plans[index]))
    return tuple(_refined(plan, measured, index + 1, order.index(index) + 1) for index, plan in enumerate(plans))


def _refined(plan: Plan, measured: MeasuredPlans, rank: int, measured_rank: int) -> Refined:
    executed, timed = measured.measurement(plan)
    return Refined(
        rank=rank,
        measured_rank=measured_rank,
        predicted_ns=plan.latency_ns,
        measured_ns=timed.measured_ns,
        original_ns=timed.original_ns,
        objective=plan.objective,
        loss=executed.loss,
        chosen=measured_rank == 1,
    )
