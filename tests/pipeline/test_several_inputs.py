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

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.delivery.verify import verify_delivery
from trt_layermerge.importance.estimate import Estimator
from trt_layermerge.pipeline.compress import Result, compress
from trt_layermerge.pipeline.frontier import frontier_of
from trt_layermerge.pipeline.loading import Loaded, for_method, load
from trt_layermerge.pipeline.tables import baseline_stage, importance_stage, importance_table, profile_stage
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.recipes import read_recipe

UNET = f"{Path(__file__).parents[1] / 'conformance' / 'unet.py'}:unet"
TASK = Path(__file__).parent / "assets" / "denoise.py"
DDPM = replace(read_recipe("ddpm-cifar10"), steps=6, checkpoint_seconds=0)


class Silent:
    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str) -> None: ...


class Interrupting:
    """Ends a job as Ctrl-C does, in the middle of its training."""

    def __init__(self) -> None:
        self.current = ""

    def stage(self, name: str) -> None:
        self.current = name

    def progress(self, done: int, total: int, label: str) -> None:
        if (self.current, done) == ("fine-tune", 3):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory, quick_job: Any) -> Loaded:
    job = quick_job(tmp_path_factory.mktemp("unet"), model=UNET, task=TASK, batch=4, recipe=DDPM, method="joint")
    return load(job)


def test_without_a_task_it_is_profiled_and_its_fastest_plan_found(unet: Loaded, recorder: Any) -> None:
    loaded = replace(unet, task=None, job=replace(unet.job, task=None))
    profile_stage(loaded, recorder)
    wanted = {signature for choice in loaded.choices for signature in loaded.signatures(choice)}
    rows = [loaded.profile.get(signature) for signature in wanted]
    assert all(row is not None and row.timing is not None for row in rows)
    assert any(signature.group_norm and not signature.convolution for signature in wanted)
    assert any(signature.shift and signature.group_norm and signature.residual for signature in wanted)
    baseline = baseline_stage(loaded, recorder)
    plan = frontier_of(loaded, baseline, None).best(baseline.median_ns)
    assert len(plan.keys) >= len(loaded.network.chains)


@pytest.fixture(scope="module", params=[("joint", Estimator.FIT), ("layermerge", Estimator.PRODUCT)])
def denoised(request: Any, unet: Loaded) -> tuple[Loaded, Result]:
    """By our way, deciding between two plans by measurement, and by the papers'."""
    method, estimator = request.param
    output, refine = unet.job.output.with_name(method), 2 if method == "joint" else 0
    job = replace(unet.job, method=method, estimator=estimator, output=output, refine=refine)
    loaded = replace(unet, job=job, choices=for_method(choices_of(unet.network, job.limits), method))
    return loaded, compress(loaded, Silent())


def test_the_whole_job(denoised: tuple[Loaded, Result]) -> None:
    loaded, result = denoised
    manifest = result.manifest
    assert manifest.task == "denoising smooth" and manifest.metric == "minus MSE"
    assert manifest.compressed.layers < manifest.original.layers
    for figures in (manifest.original, manifest.compressed):
        assert figures.accuracy is not None and -10 < figures.accuracy < 0
    assert manifest.proof.worst_block <= 1e-10 and manifest.proof.engine <= 1e-4
    kinds = {key.split(" ")[1] for key in (item["key"] for item in manifest.plan["items"])}
    assert kinds > {"keep"}
    page = (loaded.job.output / "report.html").read_text()
    assert "test minus MSE" in page and "accuracy" not in page


def test_importance_is_measured_with_both_inputs(denoised: tuple[Loaded, Result]) -> None:
    """A row is what the changed network loses on the held-out data, run as a whole."""
    loaded, _ = denoised
    table = importance_table(loaded)
    assert len(table) > 10 and any(row.loss_after != row.loss_before for row in table)
    before = {row.loss_before for row in table}
    task, module = loaded.require_task(), loaded.network.module
    with torch.no_grad():
        losses = [task.loss(module(*inputs), target) for inputs, target in task.held_out_batches()]
    assert len(before) == 1 and before.pop() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_delivery_holds_all_inputs_by_name(denoised: tuple[Loaded, Result], tmp_path: Path) -> None:
    job = denoised[0].job
    found = verify_delivery(job.output / "manifest.json")
    assert found.samples == 32 and found.engine <= 1e-4
    checks = load_file(job.output / "checks.safetensors")
    assert set(checks) == {"inputs.sample", "inputs.timestep", "outputs"}
    assert checks["inputs.timestep"].dtype == torch.int64 and checks["inputs.timestep"].shape == (32,)
    assert [value.name for value in onnx.load(job.output / "compressed.onnx").graph.input] == ["sample", "timestep"]


def test_what_was_interrupted_ends_as_if_it_had_not_been(
    denoised: tuple[Loaded, Result], tmp_path: Path, recorder: Any
) -> None:
    """Rows of the importance table, which must be the same each time, and the trained weights, bit for bit."""
    whole, result = denoised
    job = replace(whole.job, output=tmp_path / "out")
    loaded = replace(whole, job=job)
    shutil.copytree(whole.job.output, job.output, ignore=shutil.ignore_patterns("finetune-*"))
    lines = job.importance_file.read_text().splitlines(keepends=True)
    job.importance_file.write_text("".join(lines[:4]))
    expected = {row.choice: replace(row, seconds=0) for row in importance_table(whole)}
    table = importance_stage(loaded, recorder, [choice for choice in whole.choices if choice.key in expected])
    assert {row.choice: replace(row, seconds=0) for row in table} == expected and len(expected) > 4
    with pytest.raises(KeyboardInterrupt):
        compress(loaded, Interrupting())
    assert compress(loaded, recorder).manifest.compressed.accuracy == result.manifest.compressed.accuracy
    assert [done for stage, done, _ in recorder.steps if stage == "fine-tune"] == [3, 4, 5, 6]
    (resumed,), (never,) = (one.output.glob("finetune-*.checkpoint.safetensors") for one in (job, whole.job))
    ours, theirs = Checkpoint.read(resumed).weights, Checkpoint.read(never).weights
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
