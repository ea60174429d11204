"""Whole jobs without labels, of networks of one output and of several."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.errors import Caution, ModelError, TaskError, UsageError
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.pipeline import training
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.dry_run import data_plan, job_plan
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.outcome import held_out_loss
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipes import read_recipe
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.preprocessing import Preprocessing

SEVERAL = Path(__file__).parent / "assets" / "several.py"
RECIPE = replace(read_recipe("no-labels"), epochs=2)

JobOf = Callable[..., Job]


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that differ in more than noise: plain colours with some noise."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (80, 1, 1, 3)) + random.integers(-40, 40, (80, 12, 12, 3))
    path = tmp_path_factory.mktemp("samples") / "images.npy"
    np.save(path, colours.clip(0, 255).astype(np.uint8))
    return path


@pytest.fixture
def job_of(tmp_path: Path, quick_job: Any, samples: Path) -> JobOf:
    def job(outputs: str, **changed: Any) -> Job:
        made: Job = quick_job(tmp_path, model=f"{SEVERAL}:{outputs}", weights=None, task=samples, recipe=RECIPE)
        return replace(made, runtime="estimate:rtx-2080-ti", **changed)

    return job


@pytest.mark.parametrize("outputs", ["one", "two", "three", "frames"])
def test_a_whole_job(outputs: str, job_of: JobOf, recorder: Any) -> None:
    job = job_of(outputs, **({"recipe": None} if outputs == "frames" else {}))  # whose training leads away
    result = whole_job(open_session(job), recorder)
    manifest = verify_delivery(job.output / "manifest.json").manifest
    kinds = {
        "one": {"output": "top-1"}, "two": {"output_0": "1 - normalised error", "output_1": "1 - normalised error"},
        "frames": {"output_0": "1 - normalised error", "output_1": "1 - normalised error"},
        "three": {"scores": "top-1", "boxes": "1 - normalised error", "map": "1 - normalised error"},
    }[outputs]  # fmt: skip
    assert manifest.agreement is not None and list(manifest.agreement) == list(kinds)
    assert manifest.compressed.accuracy == pytest.approx(sum(manifest.agreement.values()) / len(kinds))
    assert manifest.compressed.accuracy > 0.5 and manifest.original.accuracy == pytest.approx(1, abs=1e-4)
    assert manifest.metric is not None and manifest.metric.startswith("agreement (")
    assert all(words in manifest.metric for words in kinds.values())
    page, manifest_itself = (job.output / "report.html").read_text().split("The manifest, as it lies beside the engine")
    assert "accuracy" in manifest_itself, "its fields have their own names"
    said = (job.output / "result.json").read_text() + page
    assert "accuracy" not in said and "agreement" in said
    told = json.loads((job.output / "result.json").read_text())
    assert told["compressed"]["agreement"] == manifest.compressed.accuracy and told["agreement"] == manifest.agreement
    assert told == json.loads(json.dumps(result.as_json()))


def test_rows_of_a_sample_lie_one_after_the_other(job_of: JobOf) -> None:
    with pytest.raises(ModelError, match=r"'output_0' of .*in_turn has 3 rows for each sample, which do not lie"):
        open_session(job_of("frames_in_turn"))


def test_the_original_is_at_no_distance_from_itself(job_of: JobOf) -> None:
    session = open_session(job_of("three"))
    task = session.require_task()
    score = evaluate(session.network.module, task.test_batches(), task)
    assert score.loss == pytest.approx(0, abs=1e-6) and score.accuracy == pytest.approx(1)
    assert score.samples == 16
    with torch.no_grad():
        for parameter in session.network.module.parameters():
            parameter.mul_(1.5)
    assert evaluate(session.network.module, task.test_batches(), task).loss > 0.1, "it has an original of its own"


@pytest.mark.parametrize("estimator", [Finetune(share=0.5, lr=1e-3), Gates(share=0.5, lr=1e-3)])
def test_estimators_that_train_learn_from_the_original(estimator: Any, job_of: JobOf, recorder: Any) -> None:
    job = job_of("two", estimator=estimator, method="depth" if isinstance(estimator, Gates) else "joint")
    table = importance_stage(open_session(job), recorder)
    assert len(table) and all(row.loss_after >= -1e-6 for row in table)


def test_training_brings_replaced_blocks_near_to_the_original(job_of: JobOf, recorder: Any) -> None:
    """Inner states are compared: training with them ends nearer to the original than it begins."""
    session = open_session(job_of("two"))
    rows = importance_stage(session, recorder)
    losses = {choice: row.loss_after for choice in session.choices if (row := rows.get(choice.key)) is not None}
    worst = max((choice for choice in losses if choice.kind is Kind.FIT), key=losses.__getitem__)
    executed = training.execute_on(session.computes_on, session.network, [worst], training._calibration(session)).merged
    seen = training.observe_blocks(session.network, executed, [worst])
    inputs = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        *outputs, inner = seen.teacher(inputs)
        *ours, state = seen.student(inputs)
    assert inner.shape == state.shape and len(outputs) == len(ours) == 2
    before = held_out_loss(session, executed)
    recipe = replace(RECIPE, epochs=20)
    fine_tune(seen.student, session.training_task(), recipe, checkpoint=session.job.output / "a", teacher=seen.teacher)
    assert held_out_loss(session, executed) < before, "the student's weights are those of the network"


def test_training_that_leads_away_is_not_used(job_of: JobOf, recorder: Any) -> None:
    session = open_session(job_of("one", recipe=replace(RECIPE, lr=0.1, clip_norm=None)))
    with pytest.warns(Caution, match="training led away from the original and is not used"):
        result = whole_job(session, recorder)
    assert any("led away" in words for words in result.as_json()["warnings"])
    assert result.manifest.compressed.accuracy is not None and result.manifest.compressed.accuracy > 0.5


def test_a_metric_of_ones_own(job_of: JobOf, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def metric(outputs, original):\n    return 1 / (1 + (outputs['boxes'] - original['boxes']).abs().amax(1))\n"
    )
    session = open_session(job_of("three", comparing=Comparing(metric=file)))
    assert session.comparison is not None and session.comparison.metric_name == "agreement (mine.py)"
    task = session.require_task()
    assert evaluate(session.network.module, task.test_batches(), task).accuracy == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def metric(outputs, original):\n    return outputs['boxs']\n", r"KeyError: 'boxs' \(.*mine.py, line 2\)"),
        ("def metric(outputs, original):\n    return 1.0\n", "returns a float.*\n.*tensor"),
        ("def metric(outputs, original):\n    return outputs['boxes']\n", r"metric returns \[.*, 4\] for a batch"),
        ("def other(): ...\n", "has no function 'metric'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_metric_is_told_at_once(source: str, words: str, job_of: JobOf, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(TaskError, match=words):
        open_session(job_of("three", comparing=Comparing(metric=tmp_path / "mine.py")))


def test_what_is_read_and_compared_is_told_before(job_of: JobOf) -> None:
    session = open_session(job_of("three", comparing=Comparing(Preprocessing(mean=(0.5,)), (("scores", "error"),))))
    read, parts, compared = data_plan(session)
    assert "80 samples" in read and "less 0.5 over 1" in read
    assert parts == "48 to train and calibrate on, 16 held out, 16 to test"
    assert "scores by error, boxes by error, map by error" in compared
    assert {"stage": "fine-tune", "what": "2 steps of 32 images"}.items() <= job_plan(session)[-2].items()


def test_importances_belong_to_data_steps_and_distances(job_of: JobOf, samples: Path, tmp_path: Path) -> None:
    whole = job_of("three")
    ways = [
        whole,
        replace(whole, comparing=Comparing(Preprocessing(mean=(0.5,)))),
        replace(whole, comparing=Comparing(distances=(("map", "logits"),))),
    ]
    first, *others = (open_session(job).fingerprint for job in ways)
    assert len({first, *others}) == 3
    moved = shutil.copy(samples, tmp_path / samples.name)
    assert open_session(replace(whole, recipe=None, task=Path(moved))).fingerprint == first


def test_steps_are_for_tasks_without_labels(job_of: JobOf) -> None:
    labelled = replace(job_of("one"), task=SEVERAL.with_name("task.py"), comparing=Comparing(Preprocessing(scale=1.0)))
    with pytest.raises(UsageError, match="are for tasks without labels"):
        open_session(labelled)


def test_images_that_do_not_fit_the_network_are_told(job_of: JobOf, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"of shape \[48, 1, 12, 12\]; the network takes \[batch, 3, 12, 12\]"):
        open_session(job_of("one", input_shape=(3, 12, 12), comparing=Comparing(Preprocessing(channels="grey"))))


LABELLED = """
import torch
from torch.nn import functional as F

class Both:
    name, steps_per_epoch = "both", 1
    def batches(self):
        x = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        yield x, (x.mean((1, 2, 3)).mul(5).long(), x[:, :2])
    def training_batches(self, *, seed, epoch, first_step=0): return self.batches()
    calibration_batches = held_out_batches = test_batches = batches
    def loss(self, output, target):
        return F.cross_entropy(output[0], target[0]) + F.mse_loss(output[1], target[1])
    def metric(self, output, target): return (output[0].argmax(1) == target[0]).float()

task = Both
"""


def test_a_task_with_labels_gets_all_outputs_and_may_have_as_many_targets(job_of: JobOf, tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(LABELLED)
    session = open_session(replace(job_of("two"), task=tmp_path / "both.py"))
    assert session.comparison is None
    trained = session.training_task()
    fine_tune(session.network.module, trained, RECIPE, checkpoint=tmp_path / "checkpoint")
    assert evaluate(session.network.module, trained.test_batches(), trained).samples == 8


def test_a_task_of_one_output_says_what_it_got(job_of: JobOf, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(LABELLED.replace("output[0]", "output").replace("output[1]", "output"))
    with pytest.raises(TaskError, match=r"returns 2 tensors \(output_0, output_1\), and loss and metric get a tuple"):
        open_session(replace(job_of("two"), task=tmp_path / "one.py"))
    with pytest.raises(UsageError, match="returns several tensors: which are logits is not known"):
        open_session(replace(job_of("two"), task=tmp_path / "one.py", recipe=replace(RECIPE, distillation=0.5)))
