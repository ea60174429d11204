from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.errors import InfeasibleBudgetError, TableError
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline import measuring
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.solving import chosen, plan_stage
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import read_plan, write_plan


def test_a_budget_nobody_can_meet_is_told_before_importance(
    tmp_path: Path, quick_job: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most of its time is spent outside of all blocks, as a fast machine might not have it.
    monkeypatch.setattr(measuring, "anchored", lambda *_: (Timing.of([1e9] * 6), 1.0))
    job = quick_job(tmp_path, budget=Budget.parse("0.001ms"))
    with pytest.raises(InfeasibleBudgetError, match=r"the fastest takes [\d.]+ ms") as caught:
        plan_stage(open_session(job), recorder)
    assert recorder.stages == ["profile", "baseline"] and caught.value.exit_code == 4
    assert not job.importance_file.exists() and not job.plan_file.exists()
    possible = replace(job, budget=Budget.parse(f"{caught.value.fastest_ms}ms"))
    assert plan_stage(open_session(possible), recorder).plan.latency_ms == caught.value.fastest_ms


def test_a_plan_is_kept_whatever_is_measured_later(done: Job, recorder: Any) -> None:
    before, session = done.plan_file.read_bytes(), open_session(done)
    for row in list(session.profile):
        if row.timing is not None:
            slow = replace(row.timing, median_ns=9 * row.timing.median_ns, ci_high_ns=9 * row.timing.ci_high_ns)
            session.profile.add(replace(row, timing=slow))
    plan_stage(open_session(done), recorder)
    assert done.plan_file.read_bytes() == before and recorder.stages == []


@pytest.mark.parametrize("change", [{"budget": Budget.parse("0.95")}, {"method": "layermerge"}])
def test_a_plan_for_something_else_is_made_anew(done: Job, recorder: Any, change: dict[str, Any]) -> None:
    before = done.plan_file.read_bytes()
    plan_stage(open_session(replace(done, **change)), recorder)
    assert done.plan_file.read_bytes() != before and recorder.stages[-1] == "solve"


def test_a_plan_of_another_network_is_refused(done: Job) -> None:
    file = read_plan(done.plan_file)
    items = (replace(file.plan.items[0], key="0:0-1 merge 9x9 g1"), *file.plan.items[1:])
    write_plan(done.plan_file, replace(file, plan=replace(file.plan, items=items)))
    with pytest.raises(TableError, match="does not have: 0:0-1 merge 9x9 g1"):
        chosen(open_session(done), read_plan(done.plan_file).plan)
