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

from trt_layermerge.delivery.verify import verify_delivery
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimate import Estimator
from trt_layermerge.network.inputs import Input
from trt_layermerge.pipeline.compress import Result, compress
from trt_layermerge.pipeline.estimate import job_plan
from trt_layermerge.pipeline.frontier import frontier_of
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.loading import load
from trt_layermerge.pipeline.tables import baseline_stage, importance_table, profile_stage
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.recipes import read_recipe

UNET = f"{Path(__file__).parents[1] / 'conformance' / 'unet.py'}:unet"
TASK = Path(__file__).parent / "assets" / "denoise.py"
DDPM = replace(read_recipe("ddpm-cifar10"), steps=6, checkpoint_seconds=0)


def denoising_job(quick_job: Any, folder: Path, **changes: object) -> Job:
    job: Job = quick_job(folder, model=UNET, task=TASK, batch=4, recipe=DDPM)
    return replace(job, **changes)


def test_without_a_task_it_is_profiled_and_its_fastest_plan_found(
    tmp_path: Path, quick_job: Any, recorder: Any
) -> None:
    loaded = load(quick_job(tmp_path, model=UNET, task=None, batch=2))
    profile_stage(loaded, recorder)
    wanted = {signature for choice in loaded.choices for signature in loaded.signatures(choice)}
    rows = [loaded.profile.get(signature) for signature in wanted]
    assert all(row is not None and row.timing is not None for row in rows)
    assert any(signature.group_norm and not signature.convolution for signature in wanted)
    assert any(signature.shift and signature.group_norm and signature.residual for signature in wanted)
    baseline = baseline_stage(loaded, recorder)
    plan = frontier_of(loaded, baseline, None).best(baseline.median_ns)
    assert len(plan.keys) >= len(loaded.network.chains)


class Silent:
    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str) -> None: ...


@pytest.fixture(scope="module", params=[("joint", Estimator.FIT), ("layermerge", Estimator.PRODUCT)])
def denoised(request: Any, tmp_path_factory: pytest.TempPathFactory, quick_job: Any) -> tuple[Job, Result]:
    method, estimator = request.param
    folder = tmp_path_factory.mktemp(method)
    job = denoising_job(quick_job, folder, method=method, estimator=estimator)
    return job, compress(load(job), Silent())


def test_the_whole_job(denoised: tuple[Job, Result]) -> None:
    job, result = denoised
    manifest = result.manifest
    assert manifest.task == "denoising smooth" and manifest.metric == "minus mean square error"
    assert manifest.compressed.layers < manifest.original.layers
    for figures in (manifest.original, manifest.compressed):
        assert figures.accuracy is not None and -10 < figures.accuracy < 0
    assert manifest.proof.worst_block <= 1e-10 and manifest.proof.engine <= 1e-4
    kinds = {key.split(" ")[1] for key in (item["key"] for item in manifest.plan["items"])}
    assert kinds > {"keep"}
    page = (job.output / "report.html").read_text()
    assert "test minus mean square error" in page and "accuracy" not in page


def test_importance_is_measured_with_both_inputs(denoised: tuple[Job, Result]) -> None:
    """A row is what the changed network loses on the held-out data, run as a whole."""
    loaded = load(denoised[0])
    table = importance_table(loaded)
    assert len(table) > 10 and any(row.loss_after != row.loss_before for row in table)
    before = {row.loss_before for row in table}
    task, module = loaded.require_task(), loaded.network.module
    with torch.no_grad():
        losses = [task.loss(module(*inputs), target) for inputs, target in task.held_out_batches()]
    assert len(before) == 1 and before.pop() == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_the_delivery_holds_all_inputs_by_name(denoised: tuple[Job, Result], tmp_path: Path) -> None:
    job, _ = denoised
    found = verify_delivery(job.output / "manifest.json")
    assert found.samples == 32 and found.engine <= 1e-4
    checks = load_file(job.output / "checks.safetensors")
    assert set(checks) == {"inputs.sample", "inputs.timestep", "outputs"}
    assert checks["inputs.timestep"].dtype == torch.int64 and checks["inputs.timestep"].shape == (32,)
    assert [value.name for value in onnx.load(job.output / "compressed.onnx").graph.input] == ["sample", "timestep"]
