"""Predicted against measured, on a runtime that is deterministic: what is off is no noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import UsageError
from trt_layermerge.latency.profile import ProfileRow
from trt_layermerge.pipeline import fidelity
from trt_layermerge.pipeline.fidelity import MadeUpLosses, spread, validation_stage
from trt_layermerge.pipeline.fidelity_correction import PlanTiming
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measuring import baseline_stage, profile_stage
from trt_layermerge.pipeline.session import open_session


@pytest.fixture
def job(tmp_path: Path, quick_job: Any) -> Job:
    found: Job = quick_job(
        tmp_path, task=None, recipe=None, runtime="estimate:rtx-2080-ti", limits=Limits(max_kernel=5, max_layers=4)
    )
    return found


def test_plans_over_the_whole_frontier_are_predicted_and_measured(job: Job, recorder: Any) -> None:
    session = open_session(job)
    timed = validation_stage(session, 4, recorder)
    assert recorder.stages == ["profile", "baseline", "validate"]
    assert 2 <= len(timed) <= 4 and [one.predicted for one in timed] == sorted(one.predicted for one in timed)
    assert all(0 < one.measured < 1 and one.doubt == 0 and one.measured_ns > 0 for one in timed)
    assert all(abs(one.error) < 0.1 for one in timed), "the estimate of a sum is nearly the sum of estimates"
    assert timed[0].removed > timed[-1].removed >= 0
    left = {path.name for path in job.output.iterdir()}
    assert left == {"original.onnx", "baseline.json"} or left == {
        "original.onnx",
        "original.onnx.data",
        "baseline.json",
    }


def test_a_wrong_row_is_an_error_of_the_plans_that_rest_on_it(job: Job, recorder: Any) -> None:
    session = open_session(job)
    right = validation_stage(session, 4, recorder)
    for row in list(session.profile):  # all layers kept as they were, everything else twice as fast as it is
        kept = {one.key for c in session.choices if c.kind is Kind.KEEP for one in session.sized[c][0].signatures}
        if row.signature.key not in kept and row.timing is not None:
            half = {name: value // 2 for name, value in vars(row.timing).items() if name.endswith("_ns")}
            session.profile.add(ProfileRow(row.signature, replace(row.timing, **half), row.status, row.reason))
    wrong = validation_stage(session, 4, recorder)
    assert min(one.error for one in wrong) < min(one.error for one in right) - 0.005


def test_the_latest_plan_changes_something_and_the_first_is_the_fastest(job: Job, recorder: Any) -> None:
    session = open_session(job)
    profile_stage(session, recorder)
    frontier = frontier_of(session, baseline_stage(session, recorder), fidelity._losses(session))
    plans = spread(frontier, 3)
    assert plans[0].latency_ns == frontier.latency_ns[0] and len({plan.latency_ns for plan in plans}) == len(plans) == 3
    assert all(any(item.kind != "keep" for item in plan.items) for plan in plans)
    assert spread(frontier, 1)[0] == plans[0]
    everything = spread(frontier, 1000)
    assert len(everything) == len(frontier) - 1, "all but the original"


def test_made_up_losses_are_the_same_in_every_run(tmp_path: Path) -> None:
    losses = MadeUpLosses(tmp_path, {"a": 2, "b": 2})
    a, b = losses.get("a"), losses.get("b")
    assert a is not None and b is not None and a == losses.get("a")
    assert a.loss_after != b.loss_after and all(1 <= row.loss_after < 3 and row.loss_before == 0 for row in (a, b))
    assert losses.get("keep") is None


def test_a_network_without_plans_is_told_so(job: Job, recorder: Any) -> None:
    session = open_session(replace(job, limits=Limits(max_kernel=1, max_layers=1), method="depth"))
    with pytest.raises(UsageError, match="no choice is faster"):
        validation_stage(session, 3, recorder)


def test_importances_are_used_where_there_are_any(done: Job, recorder: Any) -> None:
    session = open_session(replace(done, policy=replace(done.policy, max_seconds=0.05)))
    assert fidelity._losses(session).path == done.importance_file
    assert not isinstance(fidelity._losses(session), MadeUpLosses)
    timed = validation_stage(session, 2, recorder)
    assert timed and all(isinstance(one, PlanTiming) for one in timed)
