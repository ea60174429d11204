"""What a report shows of a job beside its manifest, from the tables that the job's plan rests on. Measures nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.chain import Layer
from trt_layermerge.pipeline.dry_run import BUDGETS
from trt_layermerge.pipeline.job_frontier import frontier_of, kept_ns, latency_ns, saved_ns, within_network
from trt_layermerge.pipeline.measuring import importance_table, known_baseline
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import sized_in
from trt_layermerge.planning.budget_spread import spread_budgets
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.report.evidence import (
    BudgetRow,
    ChoiceRow,
    Command,
    Evidence,
    FrontierPoint,
    LayerRow,
    OperationRow,
)
from trt_layermerge.report.result import MANIFEST

POINTS = 400
"""Most points of a frontier that are drawn."""


def evidence_of(session: Session, plan: Plan) -> Evidence:
    """What there is: a plan that was kept may have outlived its tables, and then the commands alone are shown."""
    commands = tuple(_commands(session))
    try:
        baseline = known_baseline(session)
        if baseline is None:
            return Evidence(commands=commands)
        frontier = frontier_of(session, baseline, importance_table(session))
    except LayerMergeError:  # what was delivered is whole without it
        return Evidence(commands=commands)
    return Evidence(
        layers=tuple(_layers(session, baseline)),
        operations=tuple(_operations(session, plan)),
        choices=tuple(_choices(session, plan)),
        frontier=tuple(_points(frontier)),
        budgets=budget_rows(frontier),
        commands=commands,
    )


def budget_rows(frontier: Frontier) -> tuple[BudgetRow, ...]:
    """What budgets between the original and the fastest plan give."""
    original = frontier.problem.original_ns
    rows = []
    for budget in spread_budgets(frontier, BUDGETS):
        plan = frontier.best(budget.nanoseconds(original))
        changed = sum(item.kind != Kind.KEEP for item in plan.items)
        rows.append(BudgetRow(str(budget), plan.latency_ns, plan.speedup, plan.objective, changed))
    return tuple(rows)


def _points(frontier: Frontier) -> Iterator[FrontierPoint]:
    last = len(frontier) - 1
    for number in sorted({last * step // max(POINTS - 1, 1) for step in range(POINTS)}):
        yield FrontierPoint(int(frontier.latency_ns[number]), float(frontier.value[number]))


def _layers(session: Session, baseline: Timing) -> Iterator[LayerRow]:
    kept = kept_ns(session, within_network(session, baseline.median_ns))
    for chain in session.network.chains:
        for layer in chain.layers:
            latency = kept[chain.index, layer.index]
            yield LayerRow(chain.index, layer.index, layer.name, _in_words(layer), latency)


def _in_words(layer: Layer) -> str:
    geometry = layer.geometry
    kernel, stride = ("x".join(map(str, pair)) for pair in (geometry.kernel, geometry.stride))
    what = "average pooling" if layer.pooling else "convolution"
    groups = "" if geometry.groups == 1 else f", {geometry.groups} groups"
    strided = "" if set(geometry.stride) == {1} else f", stride {stride}"
    height, width = layer.output_shape[1:]
    channels = f"{geometry.in_channels} to {geometry.out_channels} channels"
    return f"{kernel} {what}, {channels}{groups}{strided}, {height}x{width}"


def _operations(session: Session, plan: Plan) -> Iterator[OperationRow]:
    planned = {signature.key: signature for one in sized_in(session, plan) for signature in one.signatures}
    wanted = planned | {one.key: one for sizes in session.sized.values() for one in sizes[0].signatures}
    rows = [row for signature in wanted.values() if (row := session.profile.get(signature)) is not None]
    timed = [(row, row.timing) for row in rows if row.timing is not None]
    for row, timing in sorted(timed, key=lambda pair: -pair[1].median_ns):
        key = row.signature.key
        yield OperationRow(key, timing.ci_low_ns, timing.median_ns, timing.ci_high_ns, row.status, key in planned)


def _choices(session: Session, plan: Plan) -> Iterator[ChoiceRow]:
    kept, table, planned = kept_ns(session), importance_table(session), set(plan.keys)
    for choice in session.choices:
        latency, row = latency_ns(session, choice), table.get(choice.key)
        if latency is None or row is None or choice.kind is Kind.KEEP:
            continue
        keeping = sum(kept[layer] for layer in layers_of(session.network, choice.block))
        saved = keeping + saved_ns(session, choice, kept) - latency
        yield ChoiceRow(choice.key, str(choice.kind), saved, row.loss_after - row.loss_before, choice.key in planned)


def _commands(session: Session) -> Iterator[Command]:
    job = session.job
    if job.command:
        yield Command(job.command, "makes it; what is measured and trained already is not done again")
    manifest = shlex.quote(str(job.output / MANIFEST))
    yield Command(f"trt-layermerge verify --manifest {manifest}", "checks it where it will run")
    yield Command(f"trt-layermerge compare {manifest} NEW/{MANIFEST}", "holds a later delivery against it")
