"""What budgets cost, measured before one is chosen: the best plan for each is executed, fitted, timed and evaluated.

Everything is kept: the tables, which a later job rests on, and what was measured, so that the same call goes on where
it stopped. Nothing is trained, and test data is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.locks import exclusive
from trt_layermerge.pipeline.dry_run import BUDGETS, finishing_plan, seconds_per_image
from trt_layermerge.pipeline.job_frontier import frontier_of, worthwhile
from trt_layermerge.pipeline.measured_plans import MeasuredPlans, digest_of, measure_plans
from trt_layermerge.pipeline.measuring import baseline_stage, importance_stage, profile_stage
from trt_layermerge.pipeline.outcome import held_out_score
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import with_kept
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.budget_spread import spread_budgets
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.progress import Reporter
from trt_layermerge.report.exploration import EXPLORATION, Exploration, ExploredBudget, write_exploration
from trt_layermerge.training.task import metric_name


def explore(session: Session, reporter: Reporter) -> Exploration:
    """Measure what budgets cost, whatever the job's own is, and write the page.

    Raises:
        InputError: Another process is at work in the same folder.
        LayerMergeError: See the stages; what was measured until then is on disk.
    """
    with exclusive(session.job.output):
        found = _explored(session, reporter)
        write_exploration(session.job.output / EXPLORATION, found)
    return found


def _explored(session: Session, reporter: Reporter) -> Exploration:
    job, device = session.job, session.profile.key.device
    profile_stage(session, reporter)
    baseline = baseline_stage(session, reporter)
    table = importance_stage(session, reporter, worthwhile(session))
    reporter.stage("solve")
    planned = {budget: with_kept(plan, table) for budget, plan in _plans(frontier_of(session, baseline, table))}
    reporter.stage("explore")
    measured = MeasuredPlans.open(job.explore_file(session.any_budget), session.any_budget)
    measure_plans(session, tuple(planned.values()), measured, table, reporter)
    original = held_out_score(session, session.network.module)
    pace = seconds_per_image(session)
    return Exploration(
        model=job.model,
        device=f"{device.runtime} {device.runtime_version} on {device.name}, {device.precision}, batch {job.batch}",
        simulated=device.simulated,
        metric=metric_name(session.require_task()),
        images=original.samples,
        original_loss=original.loss,
        original_accuracy=original.accuracy,
        budgets=tuple(_told(session, pace, str(budget), plan, measured) for budget, plan in planned.items()),
        trains=job.recipe is not None,
        command=job.command,
    )


def _plans(frontier: Frontier) -> Iterator[tuple[Budget, Plan]]:
    """Budgets and their plans; of budgets that one plan is the best for, the smallest."""
    original = frontier.problem.original_ns
    found = {}
    for budget in spread_budgets(frontier, BUDGETS):
        plan = frontier.best(budget.nanoseconds(original))
        found[digest_of(plan)] = budget, plan
    yield from found.values()


def _told(session: Session, pace: float, budget: str, plan: Plan, measured: MeasuredPlans) -> ExploredBudget:
    executed, timed = measured.measurement(plan)
    finishing = finishing_plan(session, pace, timed.measured_ns / timed.original_ns)
    return ExploredBudget(
        budget=budget,
        predicted=plan.speedup,
        measured=timed.original_ns / timed.measured_ns,
        latency_ms=timed.measured_ns / 1e6,
        changed=sum(item.kind != Kind.KEEP for item in plan.items),
        loss=executed.loss,
        accuracy=executed.accuracy,
        finishing_seconds=sum(stage["seconds"] for stage in finishing),
    )
