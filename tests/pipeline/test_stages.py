from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.errors import InfeasibleBudgetError, InputError, LayerMergeError, TableError, TaskError, UsageError
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.pipeline import stages
from trt_layermerge.pipeline.estimate import importance_plan, job_plan
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.stages import (
    baseline_stage,
    chosen,
    for_method,
    importance_table,
    latency_ns,
    load,
    plan_stage,
    profile_plan,
    worthwhile,
)
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.plan import read_plan, write_plan
from trt_layermerge.training.recipe import Recipe


def test_looking_writes_nothing(tmp_path: Path, quick_job: Any) -> None:
    loaded = load(quick_job(tmp_path))
    pending, seconds = profile_plan(loaded)
    planned = job_plan(loaded)
    assert [stage["stage"] for stage in planned] == ["profile", "importance", "merge", "fine-tune", "deliver"]
    assert pending > 5 and seconds > 0 and all(stage["seconds"] > 0 for stage in planned)
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_is_not_announced_again(done: Job) -> None:
    loaded = load(done)
    assert profile_plan(loaded) == (0, 0.0)
    assert importance_plan(loaded, worthwhile(loaded))[0] == 0
    assert len(job_plan(load(replace(done, recipe=None)))) == 4


def test_a_budget_nobody_can_meet_is_told_before_importance(
    tmp_path: Path, quick_job: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Most of its time is spent outside of all blocks, as a fast machine might not have it.
    monkeypatch.setattr(stages, "anchored", lambda *_: (Timing.of([1e9] * 6), 1.0))
    job = quick_job(tmp_path, budget=Budget.parse("0.001ms"))
    with pytest.raises(InfeasibleBudgetError, match=r"the fastest takes [\d.]+ ms") as caught:
        plan_stage(load(job), recorder)
    assert recorder.stages == ["profile", "baseline"] and caught.value.exit_code == 4
    assert not job.importance_file.exists() and not job.plan_file.exists()
    possible = replace(job, budget=Budget.parse(f"{caught.value.fastest_ms}ms"))
    assert plan_stage(load(possible), recorder).plan.latency_ms == caught.value.fastest_ms


def test_a_plan_is_kept_whatever_is_measured_later(done: Job, recorder: Any) -> None:
    before, loaded = done.plan_file.read_bytes(), load(done)
    for row in list(loaded.profile):
        if row.timing is not None:
            slow = replace(row.timing, median_ns=9 * row.timing.median_ns, ci_high_ns=9 * row.timing.ci_high_ns)
            loaded.profile.add(replace(row, timing=slow))
    plan_stage(load(done), recorder)
    assert done.plan_file.read_bytes() == before and recorder.stages == []


@pytest.mark.parametrize("change", [{"budget": Budget.parse("0.95")}, {"method": "layermerge"}])
def test_a_plan_for_something_else_is_made_anew(done: Job, recorder: Any, change: dict[str, Any]) -> None:
    before = done.plan_file.read_bytes()
    plan_stage(load(replace(done, **change)), recorder)
    assert done.plan_file.read_bytes() != before and recorder.stages[-1] == "solve"


def test_a_plan_of_another_network_is_refused(done: Job) -> None:
    file = read_plan(done.plan_file)
    items = (replace(file.plan.items[0], key="0:0-1 merge 9x9 g1"), *file.plan.items[1:])
    write_plan(done.plan_file, replace(file, plan=replace(file.plan, items=items)))
    with pytest.raises(TableError, match="does not have: 0:0-1 merge 9x9 g1"):
        chosen(load(done), read_plan(done.plan_file).plan)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"format": "trt_layermerge.baseline"}', '"' + "x" * 9, "[" * 100_000, "\x00"],
)
def test_a_damaged_baseline_is_named_and_left_alone(done: Job, recorder: Any, content: str) -> None:
    done.baseline_file.write_text(content)
    with pytest.raises(TableError, match=r"baseline\.json is damaged"):
        baseline_stage(load(done), recorder)
    assert done.baseline_file.read_text() == content


@pytest.mark.parametrize("value", ["fast", True, -1, 1.5])
def test_a_baseline_that_is_no_latency_is_refused(done: Job, recorder: Any, value: object) -> None:
    fields = json.loads(done.baseline_file.read_bytes())
    done.baseline_file.write_text(json.dumps(fields | {"median_ns": value}))
    with pytest.raises(TableError, match="median"):
        baseline_stage(load(done), recorder)


def test_the_baseline_of_something_else_is_measured_anew(done: Job, recorder: Any) -> None:
    before = baseline_stage(load(done), recorder)
    assert recorder.stages == []
    baseline_stage(load(replace(done, batch=1)), recorder)
    assert recorder.stages == ["baseline"] and json.loads(done.baseline_file.read_bytes())["batch"] == 1
    assert asdict(before).keys() < json.loads(done.baseline_file.read_bytes()).keys()


def test_what_pays_is_faster_than_keeping(done: Job) -> None:
    loaded = load(done)
    kept = {c.block.end: latency_ns(loaded, c) for c in loaded.choices if c.kind is Kind.KEEP}
    paying = worthwhile(loaded)
    assert {c.block.end for c in paying if c.kind is Kind.KEEP} == kept.keys() == {1, 2, 3, 4}
    for choice in loaded.choices:
        latency, keeping = (
            latency_ns(loaded, choice),
            [kept[i + 1] for i in range(choice.block.start, choice.block.end)],
        )
        assert latency is not None and None not in keeping
        assert (choice in paying) == (choice.kind is Kind.KEEP or latency < sum(filter(None, keeping)))


def test_without_latencies_nothing_can_pay(tmp_path: Path, quick_job: Any) -> None:
    with pytest.raises(TableError, match=r"no latency for layer 0:0-1") as caught:
        worthwhile(load(quick_job(tmp_path)))
    assert "trt-layermerge profile" in str(caught.value)


def test_the_papers_know_no_fits_and_ours_no_worse_copies(done: Job) -> None:
    choices = choices_of(load(done).network, done.limits)
    papers, ours = for_method(choices, "layermerge"), for_method(choices, "joint")
    assert not any(c.kind is Kind.FIT for c in papers) and any(c.kind is Kind.FIT for c in ours)
    fitted = {(c.block, c.geometry) for c in ours if c.kind is Kind.FIT}
    assert not any((c.block, c.geometry) in fitted for c in ours if c.kind is Kind.MERGE)
    assert {(c.block, c.geometry) for c in ours} == {(c.block, c.geometry) for c in choices}, "no convolution is lost"


def test_a_job_fails_before_it_begins(tmp_path: Path, quick_job: Any) -> None:
    (tmp_path / "file").write_text("")
    for change in ({"output": tmp_path / "file"}, {"profiles": tmp_path / "file" / "p"}):
        with pytest.raises(InputError, match="is not a folder"):
            load(quick_job(tmp_path, **change))
    with pytest.raises(UsageError, match="there is no method 'joined'"):
        load(quick_job(tmp_path, method="joined"))
    with pytest.raises(UsageError, match="no task is given"):
        importance_table(load(quick_job(tmp_path, task=None, input_shape=(1, 8, 8))))


def test_a_named_task_takes_its_size_from_the_job_and_its_batch_from_the_recipe(tmp_path: Path, quick_job: Any) -> None:
    folder = tmp_path / "cifar"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(bytes(3073) * 4)
    job = quick_job(tmp_path, task=Path(f"cifar10:{folder}"), recipe=Recipe(batch_size=5), input_shape=None)
    with pytest.raises(LayerMergeError, match="channels"):
        load(job)  # of another number than the network takes
    with pytest.raises(TaskError, match=r"32x32.*8x8"):
        load(replace(job, input_shape=(1, 8, 8)))
