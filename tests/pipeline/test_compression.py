from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from trt_layermerge.delivery.manifest import read_manifest
from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.errors import IncompatibleError, TableError, TaskError
from trt_layermerge.files import sha256
from trt_layermerge.pipeline import training
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.measuring import baseline_stage, importance_stage, importance_table, profile_stage
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.pipeline.solving import solve_stage
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.report.terminal import print_result
from trt_layermerge.training.checked_task import CheckedTask
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

STAGES = ["profile", "baseline", "importance", "solve", "merge", "fine-tune", "prove", "deliver", "measure", "test"]
KEPT = ("importance.jsonl", "baseline.json", "plan.json", "finetune-")


def kept(job: Job) -> dict[str, str]:
    """Hashes of what a job does not do twice."""
    files = [path for path in job.output.iterdir() if path.name.startswith(KEPT)]
    return {path.name: sha256(path) for path in [*files, *job.profiles.rglob("*.jsonl")]}


def test_the_whole_job(first_run: Any) -> None:
    job, result, recorder = first_run
    assert recorder.stages == STAGES
    verification = verify_delivery(job.output / "manifest.json")
    manifest = verification.manifest
    assert manifest == result.manifest and verification.samples == 64
    assert manifest.compressed.layers < manifest.original.layers == 4
    assert manifest.compressed.parameters < manifest.original.parameters
    assert manifest.original.accuracy is not None and manifest.compressed.accuracy is not None
    assert manifest.compressed.accuracy > 0.9, "the task is easy"
    for figures in (manifest.original, manifest.compressed):
        assert 0 < figures.latency_ci_ms[0] <= figures.latency_ms <= figures.latency_ci_ms[1]
    assert manifest.speedup == pytest.approx(manifest.original.latency_ms / manifest.compressed.latency_ms)
    assert manifest.plan == json.loads((job.output / "plan.json").read_bytes())
    plan = read_plan(job.plan_file).plan
    assert manifest.drift == pytest.approx(manifest.original.latency_ms * 1e6 / plan.original_ns)
    assert manifest.predicted_latency_ms == pytest.approx(plan.latency_ms * manifest.drift)
    assert manifest.task == "bright or dark" and manifest.seeds == {"training": 0} and not manifest.simulated
    assert manifest.proof.worst_block <= 1e-10 and manifest.proof.fold_end_to_end <= 1e-4
    assert json.loads((job.output / "result.json").read_bytes()) == result.as_json()
    assert all(Path(result.as_json()[name]).is_file() for name in ("engine", "manifest", "report"))


def test_a_second_call_measures_and_trains_nothing_again(done: Job, recorder: Any) -> None:
    before = kept(done)
    whole_job(open_session(done), recorder)
    assert kept(done) == before
    assert not {"profile", "baseline", "importance", "solve"} & set(recorder.stages)
    assert [step for step in recorder.steps if step[0] == "fine-tune"] == [("fine-tune", 16, 16)]


def test_stages_done_one_by_one_are_not_done_again(tmp_path: Path, quick_job: Any, recorder: Any) -> None:
    job = quick_job(tmp_path)
    profile_stage(open_session(job), recorder)
    importance_stage(open_session(job), recorder)
    session = open_session(job)
    plan = solve_stage(session, baseline_stage(session, recorder), importance_table(session))
    before, recorder.stages = kept(job), []
    assert whole_job(open_session(job), recorder).manifest.plan["latency_ns"] == plan.plan.latency_ns
    assert recorder.stages == STAGES[4:]
    after = kept(job)
    assert {name: after[name] for name in before} == before


def test_another_budget_is_another_plan_from_the_same_tables(done: Job, recorder: Any) -> None:
    before = kept(done)
    whole_job(open_session(replace(done, budget=done.budget.parse("1.0"))), recorder)
    assert [step for step in recorder.steps if step[0] in ("profile", "importance")] == []
    after = kept(done)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"plan.json"}


@pytest.mark.parametrize("change", [{"recipe": Recipe(epochs=1, lr=0.01, checkpoint_seconds=0)}, {"fit_samples": 32}])
def test_another_recipe_or_start_is_another_training_of_the_same_plan(
    done: Job, recorder: Any, change: dict[str, Any]
) -> None:
    before = kept(done)
    whole_job(open_session(replace(done, **change)), recorder)
    assert ("fine-tune", 0, 16) in recorder.steps
    assert before.items() < kept(done).items()


def test_how_often_training_is_saved_changes_nothing(done: Job, recorder: Any) -> None:
    assert done.recipe is not None
    whole_job(open_session(replace(done, recipe=replace(done.recipe, checkpoint_seconds=99.0))), recorder)
    assert ("fine-tune", 0, 16) not in recorder.steps


def test_without_fine_tuning_nothing_is_trained(done: Job, recorder: Any) -> None:
    result = whole_job(open_session(replace(done, recipe=None)), recorder)
    assert "fine-tune" not in recorder.stages and result.manifest.seeds == {}
    verify_delivery(done.output / "manifest.json")


@pytest.mark.parametrize("kind", ["start", "checkpoint"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_damaged_training_files_are_named_and_left_alone(done: Job, recorder: Any, kind: str, damage: str) -> None:
    (file,) = done.output.glob(f"finetune-*.{kind}.safetensors")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.write_bytes((done.output / "checks.safetensors").read_bytes())
    before = kept(done)
    with pytest.raises(TableError, match=file.name.replace(".", r"\.")):
        whole_job(open_session(done), recorder)
    assert kept(done) == before


def test_other_weights_are_not_planned_with_the_old_importances(done: Job, recorder: Any) -> None:
    session = open_session(done)
    assert session.network.source is not None
    with torch.no_grad():
        for module in (session.network.module, session.network.source):
            next(module.parameters()).add_(1)
    with pytest.raises(IncompatibleError, match="weights: "):
        whole_job(session, recorder)


def test_what_is_delivered_is_what_was_trained(done: Job) -> None:
    manifest = read_manifest(done.output / "manifest.json")
    networks = {"original.onnx", "compressed.onnx", "compressed.engine.onnx"}
    assert manifest.files.keys() == networks | {"checks.safetensors", "report.html", "result.json"}
    assert manifest.proof.engine <= 1e-4 and manifest.proof.samples == 64
    assert len(worthwhile(open_session(done))) >= manifest.original.layers


def test_test_data_of_another_size_is_found_before_anything_long(done: Job, recorder: Any) -> None:
    session = open_session(done)
    checked = session.require_task()
    assert isinstance(checked, CheckedTask)
    task = checked.given
    assert isinstance(task, Classification)
    smaller = TensorDataset(torch.zeros(8, 1, 5, 5), torch.zeros(8, dtype=torch.long))
    with pytest.raises(TaskError, match="test_batches yields inputs of"):
        whole_job(replace(session, task=replace(task, test=smaller)), recorder)
    assert not recorder.stages


def test_a_training_that_had_to_back_off_says_at_what_rate_it_ended(
    done: Job, recorder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = training.fine_tune
    monkeypatch.setattr(training, "fine_tune", lambda *args, **how: replace(real(*args, **how), lr=0.005, backoffs=2))
    result = whole_job(open_session(done), recorder)
    assert json.loads((done.output / "result.json").read_text())["slowed_lr"] == 0.005 == result.slowed_lr
    print_result(result)
    assert "peak learning rate of 0.005" in " ".join(capsys.readouterr().out.split())
