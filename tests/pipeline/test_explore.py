"""What budgets cost, before one is chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.pipeline.stopping import StoppedError, StoppingIn
from trt_layermerge.pipeline.dry_run import exploration_plan
from trt_layermerge.pipeline.explore import explore
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.outcome import held_out_score
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.budget import Budget
from trt_layermerge.report.exploration import EXPLORATION


def test_budgets_are_measured_on_held_out_data_and_nothing_is_trained(
    done: Job, recorder: Any, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(done)

    def refused(*_: object) -> Any:
        raise AssertionError("test data is not to be read")

    monkeypatch.setattr(type(session.task), "test_batches", refused)
    before = {path.name for path in done.output.iterdir()}
    found = explore(session, recorder)
    assert "explore" in recorder.stages and not {"fine-tune", "test", "deliver"} & set(recorder.stages)
    assert 1 <= len(found.budgets) <= 5 and counted == {"execute_plan": len(found.budgets), "compare": 1}
    budgets = [float(one.budget) for one in found.budgets]
    assert budgets == sorted(budgets, reverse=True)
    predicted = [one.predicted for one in found.budgets]
    assert predicted == sorted(predicted)
    assert all(1 / one.predicted <= budget for one, budget in zip(found.budgets, budgets, strict=True))
    assert all(one.loss > 0 and one.measured > 0 and one.accuracy is not None for one in found.budgets)
    original = held_out_score(session, session.network.module)
    assert (found.original_loss, found.images) == (original.loss, original.samples)
    made = {path.name for path in done.output.iterdir()} - before
    assert {name.split("-")[0] for name in made} == {"explore", EXPLORATION}, "a journal and the page"


def test_what_was_explored_is_not_explored_again_whatever_the_budget(
    done: Job, recorder: Any, counted: dict[str, int]
) -> None:
    found = explore(open_session(done), recorder)
    once = dict(counted)
    for job in (done, replace(done, budget=Budget.parse("0.7"), refine=2)):
        assert explore(open_session(job), recorder).budgets == found.budgets and counted == once


def test_it_goes_on_where_it_stopped(done: Job, recorder: Any, counted: dict[str, int]) -> None:
    with pytest.raises(StoppedError):
        explore(open_session(done), StoppingIn("explore", 1))
    assert counted == {"execute_plan": 1, "compare": 0}
    found = explore(open_session(done), recorder)
    assert counted == {"execute_plan": len(found.budgets), "compare": 1}
    assert not list(done.output.glob("plan-*.onnx"))


def test_it_is_announced_with_what_is_left_to_measure(done: Job) -> None:
    stages = exploration_plan(open_session(done))
    assert [stage["stage"] for stage in stages] == ["profile", "importance", "explore"]
    assert stages[-1]["what"] == "5 plans" and stages[-1]["seconds"] > 0


def test_it_is_told_in_every_form(done: Job, recorder: Any) -> None:
    found = explore(open_session(done), recorder)
    said = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [one["budget"] for one in said["budgets"]] == [one.budget for one in found.budgets]
    page = (done.output / EXPLORATION).read_text()
    first, *others = found.rows
    assert len(others) == len(found.budgets) and all(len(row) == len(found.columns) for row in found.rows)
    assert all(cell in page for row in (first, *others) for cell in row)
