"""Whole jobs of a network that takes images and whole-numbered time steps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from safetensors.torch import load_file

from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.network.inputs import examples
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.measuring import baseline_stage, importance_stage, importance_table, profile_stage
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.solving import chosen
from trt_layermerge.pipeline.training import execute_and_train
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.report.result import Result
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.recipes import read_recipe

ASSETS = Path(__file__).parent / "assets"
UNET = f"{Path(__file__).parents[1] / 'conformance' / 'unet.py'}:unet"
DDPM = replace(read_recipe("ddpm-cifar10"), steps=6, checkpoint_seconds=0)


class Silent:
    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None: ...


class Interrupting:
    """Ends a job as Ctrl-C does, in the middle of its training."""

    def __init__(self) -> None:
        self.current = ""

    def stage(self, name: str) -> None:
        self.current = name

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        if (self.current, done) == ("fine-tune", 3):
            raise KeyboardInterrupt


def test_without_a_task_it_is_profiled_and_its_fastest_plan_found(
    tmp_path: Path, quick_job: Any, recorder: Any
) -> None:
    session = open_session(quick_job(tmp_path, model=UNET, task=None, batch=2, method="layermerge"))
    profile_stage(session, recorder)
    wanted = {signature for choice in session.choices for signature in session.sized[choice][0].signatures}
    rows = [session.profile.get(signature) for signature in wanted]
    assert all(row is not None and row.timing is not None for row in rows)
    assert any(signature.group_norm and not signature.convolution for signature in wanted)
    assert any(signature.shift and signature.group_norm and signature.residual for signature in wanted)
    baseline = baseline_stage(session, recorder)
    plan = frontier_of(session, baseline, None).best(baseline.median_ns)
    assert len(plan.keys) >= len(session.network.chains)


@pytest.fixture(scope="module", params=["joint", "layermerge"])
def denoised(request: Any, tmp_path_factory: pytest.TempPathFactory, quick_job: Any) -> tuple[Session, Result]:
    """A U-Net by our way; and by the papers', measuring two plans in FP16, one whose time steps are real numbers."""
    job = quick_job(tmp_path_factory.mktemp(request.param), batch=4, recipe=DDPM, method=request.param)
    if request.param == "joint":
        job = replace(job, model=UNET, task=ASSETS / "denoise.py")
    else:
        model, task = f"{ASSETS / 'denoiser.py'}:denoiser", Path(f"{ASSETS / 'denoise.py'}:continuous")
        job = replace(job, model=model, task=task, estimator=Product(), refine=2)
        job = replace(job, options=BuildOptions(precision="fp16"))
    session = open_session(job)
    return session, whole_job(session, Silent())


def test_the_whole_job(denoised: tuple[Session, Result]) -> None:
    session, result = denoised
    manifest = result.manifest
    assert manifest.task == "denoising smooth" and manifest.metric == "minus MSE"
    assert manifest.compressed.layers < manifest.original.layers
    for figures in (manifest.original, manifest.compressed):
        assert figures.accuracy is not None and -10 < figures.accuracy < 0
    assert manifest.proof.worst_block <= 1e-10
    assert manifest.proof.engine <= OUTPUT_TOLERANCE[manifest.device.precision]
    kinds = {key.split(" ")[1] for key in (item["key"] for item in manifest.plan["items"])}
    assert kinds > {"keep"}
    page, _ = (session.job.output / "report.html").read_text().split("The manifest, as it lies beside the engine")
    assert "test minus MSE" in page and "accuracy" not in page


def test_importance_is_measured_with_both_inputs(denoised: tuple[Session, Result]) -> None:
    """A row is what the changed network loses on the held-out data, run as a whole."""
    session, _ = denoised
    table = importance_table(session)
    assert any(row.loss_after != row.loss_before for row in table)
    before = {row.loss_before for row in table}
    task, module = session.require_task(), session.network.module
    with torch.no_grad():
        losses = [task.loss(module(*inputs), target) for inputs, target in task.held_out_batches()]
    assert len(before) == 1 and before.pop() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_delivery_holds_all_inputs_by_name(denoised: tuple[Session, Result], tmp_path: Path) -> None:
    job = denoised[0].job
    found = verify_delivery(job.output / "manifest.json")
    assert found.samples == 32 and found.engine == pytest.approx(found.manifest.proof.engine, rel=0.5)
    checks = load_file(job.output / "checks.safetensors")
    assert set(checks) == {"inputs.sample", "inputs.timestep", "outputs"}
    wanted = next(iter(denoised[0].require_task().held_out_batches()))[0][1]
    assert checks["inputs.timestep"].dtype == wanted.dtype and torch.equal(checks["inputs.timestep"][:16], wanted)
    assert [value.name for value in onnx.load(job.output / "compressed.onnx").graph.input] == ["sample", "timestep"]


def test_it_is_calibrated_with_all_inputs(denoised: tuple[Session, Result], tmp_path: Path) -> None:
    session = elsewhere(denoised[0], tmp_path)
    int8 = replace(session, job=replace(session.job, options=BuildOptions(precision="int8")))
    assert 0 < int8.typed(session.job.original_onnx).error < OUTPUT_TOLERANCE["int8"]


def test_rows_are_the_same_each_time(denoised: tuple[Session, Result], tmp_path: Path, recorder: Any) -> None:
    """So that a table which was interrupted is filled as if it had not been."""
    whole, session = denoised[0], elsewhere(denoised[0], tmp_path)
    file = session.job.importance_file
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    expected = {row.choice: replace(row, seconds=0) for row in importance_table(whole)}
    table = importance_stage(session, recorder, [choice for choice in whole.choices if choice.key in expected])
    assert {row.choice: replace(row, seconds=0) for row in table} == expected and expected


def test_interrupted_training_ends_with_the_same_weights(
    denoised: tuple[Session, Result], tmp_path: Path, recorder: Any
) -> None:
    whole, session = denoised[0], elsewhere(denoised[0], tmp_path)
    choices = chosen(session, read_plan(session.job.plan_file).plan)
    given = examples(session.network.inputs, 2)
    with pytest.raises(KeyboardInterrupt):
        execute_and_train(session, choices, given, Interrupting())
    execute_and_train(session, choices, given, recorder)
    assert [done for stage, done, _ in recorder.steps if stage == "fine-tune"] == [3, 4, 5, 6]
    (resumed,), (never,) = (one.job.output.glob("finetune-*.checkpoint.safetensors") for one in (session, whole))
    ours, theirs = Checkpoint.read(resumed).weights, Checkpoint.read(never).weights
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def elsewhere(session: Session, folder: Path) -> Session:
    """The same job in a folder of its own, with what is left of it when its training is forgotten."""
    shutil.copytree(session.job.output, folder / "out", ignore=shutil.ignore_patterns("finetune-*"))
    return replace(session, job=replace(session.job, output=folder / "out"))
