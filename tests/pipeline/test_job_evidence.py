"""What a report shows of a job: numbers that agree with the plan and with each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_evidence import evidence_of
from trt_layermerge.pipeline.measuring import importance_table, known_baseline
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.report.evidence import NO_EVIDENCE


def test_the_rows_are_those_of_the_tables(done: Job) -> None:
    session, plan = open_session(done), read_plan(done.plan_file).plan
    found, baseline = evidence_of(session, plan), known_baseline(session)
    assert baseline is not None
    assert [layer.name for layer in found.layers] == [layer.name for layer in session.network.layers]
    assert sum(layer.latency_ns for layer in found.layers) <= baseline.median_ns, "parts of the original"
    medians = [row.median_ns for row in found.operations]
    assert medians == sorted(medians, reverse=True) and any(row.planned for row in found.operations)
    for row in found.operations:
        assert row.low_ns <= row.median_ns <= row.high_ns
    table = importance_table(session)
    for choice in found.choices:
        row = table.get(choice.key)
        assert row is not None and choice.loss == row.loss_after - row.loss_before
    kept = [key for item in plan.items if item.kind == Kind.KEEP for key in (item.key,)]
    assert {choice.key for choice in found.choices if choice.planned} == {*plan.keys} - {*kept}


def test_the_frontier_holds_the_plan_and_what_budgets_give(done: Job) -> None:
    plan = read_plan(done.plan_file).plan
    found = evidence_of(open_session(done), plan)
    points = [(point.latency_ns, point.objective) for point in found.frontier]
    assert points == sorted(points) and [value for _, value in points] == sorted(value for _, value in points)
    assert (plan.latency_ns, plan.objective) in points
    for row in found.budgets:
        assert (row.latency_ns, row.objective) in points
        assert row.speedup >= 1 / float(row.budget) and row.changed > 0


@pytest.mark.parametrize("missing", ["baseline_file", "importance_file"])
def test_a_plan_may_outlive_its_tables(done: Job, missing: str) -> None:
    plan = read_plan(done.plan_file).plan
    getattr(done, missing).unlink()
    found = evidence_of(open_session(done), plan)
    assert replace(found, commands=()) == NO_EVIDENCE and found.commands


def test_the_commands_are_those_that_a_shell_takes(done: Job) -> None:
    job = replace(done, command="trt-layermerge compress 'my model.py'")
    found = evidence_of(open_session(job), read_plan(done.plan_file).plan)
    assert [one.line.split()[1] for one in found.commands] == ["compress", "verify", "compare"]
