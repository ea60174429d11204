"""The stages up to the plan file; a plan that was made for the very same settings is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.sized_choices import SizedChoice, group_key
from trt_layermerge.errors import TableError, say
from trt_layermerge.files import sha256
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.locks import exclusive
from trt_layermerge.log import record
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.pipeline.correction_file import kept_correction
from trt_layermerge.pipeline.job_frontier import LossRows, frontier_of, worthwhile
from trt_layermerge.pipeline.measuring import baseline_stage, importance_stage, importance_table, profile_stage
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.finding import find_plans
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan, PlanFile, Refined, read_plan, write_plan
from trt_layermerge.planning.widths import PlannedWidth
from trt_layermerge.progress import Reporter

_LOG = logging.getLogger(__name__)


def plan_stage(session: Session, reporter: Reporter) -> PlanFile:
    """All stages up to the plan; a plan that was made for the very same settings is kept.

    So a job that was killed while fine-tuning goes on with the plan that it had, whatever the machine measures now.
    """
    if (file := kept_plan(session)) is not None:
        return file
    baseline, table = tables_stage(session, reporter)
    reporter.stage("solve")
    return solve_stage(session, baseline, table)


def kept_plan(session: Session) -> PlanFile | None:
    """The plan on disk, if it was made for the very same settings."""
    if not session.job.plan_file.exists():
        return None
    file = read_plan(session.job.plan_file)
    return file if file.certificate.tables.get("settings") == session.fingerprint else None


def tables_stage(session: Session, reporter: Reporter) -> tuple[Timing, ImportanceTable]:
    """All that a plan rests on: the profile, the original's latency, and importances."""
    session.require_task()
    profile_stage(session, reporter)
    baseline = baseline_stage(session, reporter)
    # The fastest plan needs latencies only: what nobody can meet is said before hours of importance.
    frontier_of(session, baseline, None).best(session.job.budget.nanoseconds(baseline.median_ns))
    return baseline, importance_stage(session, reporter, worthwhile(session))


def solve_stage(session: Session, baseline: Timing, table: ImportanceTable) -> PlanFile:
    """Plan, and write the plan file."""
    frontier, job = frontier_of(session, baseline, table), session.job
    found = find_plans(frontier, job.budget.nanoseconds(baseline.median_ns), job.confidence)
    return decide(session, with_kept(found.plans[0], table), table)


@dataclass(frozen=True)
class Solution:
    """What planning found from the tables of a job.

    Attributes:
        frontier: The best plan for every budget.
        original_ns: Measured latency of the original.
        budget_ns: The job's budget.
        plans: The best plans within it, the best one first.
        best: Whether no better plan is known to be possible.
    """

    frontier: Frontier = field(repr=False)
    original_ns: int
    budget_ns: int
    plans: tuple[Plan, ...] = ()
    best: bool = True


def solve(session: Session, reporter: Reporter, count: int = 1) -> Solution:
    """Find the ``count`` best plans from the tables as they are, and decide for the first; for none, where it is 0.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, or none does so surely enough.
        TableError: A table lacks a row.
        InputError: Another process is at work in the job's folder.
    """
    job, table = session.job, importance_table(session)
    baseline = baseline_stage(session, reporter)
    reporter.stage("solve")
    frontier = frontier_of(session, baseline, table)
    solution = Solution(frontier, baseline.median_ns, job.budget.nanoseconds(baseline.median_ns))
    if not count:
        return solution
    found = find_plans(frontier, solution.budget_ns, job.confidence, count)
    plans = tuple(with_kept(plan, table) for plan in found.plans)
    with exclusive(job.output):
        decide(session, plans[0], table)
    return replace(solution, plans=plans, best=found.best)


def with_kept(plan: Plan, table: LossRows) -> Plan:
    """A plan that says which channels of narrowed groups stay: those that were measured, or else the first ones."""

    def known(width: PlannedWidth) -> PlannedWidth:
        if width.channels == width.full:
            return width
        row = table.get(width.key)
        return replace(width, kept=(() if row is None else row.kept) or tuple(range(width.channels)))

    return replace(plan, widths=tuple(map(known, plan.widths)))


def decide(session: Session, plan: Plan, table: ImportanceTable, refined: Sequence[Refined] = ()) -> PlanFile:
    """Write the plan file of the plan that was decided for, with its certificate."""
    tables = {"profile": session.profile.sha256, "importance": table.sha256, "settings": session.fingerprint}
    if kept_correction(session) is not None:
        path = session.job.correction_file
        say(f"latencies are corrected by what profile validate found of this network: {path}")
        tables["correction"] = sha256(path)
    file = PlanFile.of(plan, session.job.budget, tables, refined)
    write_plan(session.job.plan_file, file)
    about = {"latency_ms": plan.latency_ms, "speedup": plan.speedup, "objective": plan.objective, "choices": plan.keys}
    record(_LOG.info, "plan", "plan: %.4g ms, %.2fx", plan.latency_ms, plan.speedup, **about)
    return file


@dataclass(frozen=True)
class ChosenPlan:
    """A plan as it is executed.

    Attributes:
        choices: Its choices; of a block that runs in several parts, those of the parts.
        kept: Which channels stay of groups that are narrowed.
    """

    choices: tuple[Choice, ...]
    kept: Mapping[ChannelGroup, tuple[int, ...]] = field(default_factory=dict)


def chosen(session: Session, plan: Plan) -> ChosenPlan:
    """What a plan asks for, in terms of the network.

    Raises:
        TableError: The plan names a choice or a channel group that this network does not have.
    """
    by_key = {choice.key: choice for choice in choices_of(session.network, session.job.limits)}
    for key in plan.keys:
        if key not in by_key:
            raise TableError(
                f"the plan {session.job.plan_file} has a choice that {session.network.name} does not have: {key}",
                hint="it was made for another network or other limits; run solve again",
            )
    return ChosenPlan(tuple(by_key[key] for key in plan.keys), dict(_kept(session, plan)))


def sized_in(session: Session, plan: Plan) -> Iterator[SizedChoice]:
    """The choices of a plan, each as wide as the plan has it."""
    channels = {width.group: width.channels for width in plan.widths}
    groups = session.network.channel_groups
    for choice in chosen(session, plan).choices:
        yield next(
            one
            for one in session.sized[choice]
            if all(channels.get(group_key(groups[number]), left) == left for number, left in one.widths)
        )


def _kept(session: Session, plan: Plan) -> Iterator[tuple[ChannelGroup, tuple[int, ...]]]:
    groups = {group_key(group): group for group in session.network.channel_groups}
    for width in plan.widths:
        group = groups.get(width.group)
        if group is None or group.channels != width.full or max(width.kept, default=0) >= width.full:
            raise TableError(
                f"the plan {session.job.plan_file} narrows a channel group that {session.network.name} does not have: "
                f"{width.group} of {width.full} channels",
                hint="it was made for another network; run solve again",
            )
        if width.channels < width.full:
            yield group, width.kept
