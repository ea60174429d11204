"""torch on a real GPU, and the runtime torch."""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.importance.estimators.fit import Fit
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.network.device import CPU, device_of
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

pytestmark = pytest.mark.gpu("torch")

GPU = "cuda:0"
Record = Callable[[str, object], None]
WIDE = Signature(8, (64, 28, 28), Geometry(64, 64, (3, 3), padding=(1, 1, 1, 1)), activation="relu")

quick_job = runpy.run_path(str(Path(__file__).parents[1] / "pipeline" / "assets" / "jobs.py"))["quick_job"]


class Silent:
    def stage(self, name: str) -> None:
        pass

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        pass


@pytest.fixture
def runtime() -> Runtime:
    return get_runtime(f"torch:{GPU}")


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime(f"torch:{GPU}")


def feeds(shapes: Any) -> dict[str, Any]:
    return {name: np.random.default_rng(0).standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("change", [{}, {"residual": True}, {"group_norm": 8}, {"pooling": True}], ids=str)
def test_blocks_compute_what_they_compute_on_the_cpu(runtime: Runtime, change: dict[str, Any]) -> None:
    model = candidate_model(replace(WIDE, **change))
    engines = [one.build(model, BuildOptions(isolated=True)) for one in (runtime, get_runtime("torch:cpu"))]
    there, here = (engine.run(feeds(engines[0].inputs))["output"] for engine in engines)
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-3 * np.abs(here).max())


def test_halves_are_computed_in_halves_and_are_near(runtime: Runtime, record_property: Record) -> None:
    options = BuildOptions(precision="fp16", isolated=True)
    half = runtime.build(candidate_model(replace(WIDE, precision="fp16")), options)
    given = feeds(half.inputs)
    found = half.run({name: value.astype(np.float16) for name, value in given.items()})["output"]
    full = runtime.build(candidate_model(WIDE), BuildOptions(isolated=True))
    expected = full.run(given)["output"]
    assert found.dtype == np.float16
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()
    for name, engine in (("fp32", full), ("fp16", half)):
        record_property(
            f"torch: 3x3 convolution, 64 channels, 8x28x28, {name}, us", float(np.median(engine.time(200))) / 1e3
        )


def test_a_graph_takes_no_longer_than_queued_runs(runtime: Runtime, record_property: Record) -> None:
    options = BuildOptions(settings=GpuSettings(cuda_graph=False))
    graph = float(np.median(runtime.build(small_model(), BuildOptions()).time(500)))
    queued = float(np.median(runtime.build(small_model(), options).time(500)))
    record_property("torch: two kernels in a graph, us", graph / 1e3)
    record_property("torch: two kernels queued, us", queued / 1e3)
    assert graph < 1.5 * queued


def test_the_key_names_the_gpu_and_what_computes_on_it(runtime: Runtime) -> None:
    device = runtime.describe(BuildOptions())
    assert device.name == torch.cuda.get_device_name(GPU) and device.compute_capability and not device.simulated
    assert "cuDNN" in device.settings and "TF32 off" in device.settings and "CUDA graph" in device.timing


@pytest.mark.parametrize("estimator", [Fit(), Product()], ids=lambda one: one.name)
def test_importance_is_what_it_is_on_the_cpu(tmp_path: Path, estimator: Fit, record_property: Record) -> None:
    """But for the order of sums: nothing is rounded to TF32, though torch would."""
    method = "joint" if estimator == Fit() else "layermerge"
    tables = []
    assert torch.backends.cudnn.allow_tf32
    for device in ("cpu", GPU):
        job = quick_job(tmp_path, device=device, output=tmp_path / device, method=method, estimator=estimator)
        session, begin = open_session(job), time.monotonic()
        tables.append(importance_stage(session, Silent()))
        record_property(f"importance by {estimator.name}, {device}, s", round(time.monotonic() - begin, 2))
        assert device_of(session.network.module) == CPU
    here, there = tables
    assert len(here) == len(there) > 4
    for row in here:
        assert there.get(row.choice).loss_after == pytest.approx(row.loss_after, rel=1e-3), row.choice


def test_fits_are_those_of_the_cpu(tmp_path: Path) -> None:
    """The same plan, solved on both: what each fit misses is the same, but for rounding."""
    job = quick_job(tmp_path, device="cpu", recipe=None)
    found = [whole_job(open_session(job), Silent()).manifest]
    found.append(whole_job(open_session(replace(job, device=GPU)), Silent()).manifest)
    here, there = (manifest.proof.fitted_blocks | manifest.proof.refitted_layers for manifest in found)
    assert here and there == pytest.approx(here, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("decouple", [0.0, 0.5])
def test_a_whole_job(tmp_path: Path, decouple: float, precision: str) -> None:
    """Its proofs and the verification of its engine are its own. The task is easy, in halves too."""
    job = quick_job(tmp_path, device=GPU, method="layermerge" if decouple else "joint")
    recipe = replace(job.recipe, decouple=decouple, precision=precision)
    accuracy = whole_job(open_session(replace(job, recipe=recipe)), Silent()).manifest.compressed.accuracy
    assert accuracy is not None and accuracy > 0.9


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_whole_job_that_is_timed_in_torch(tmp_path: Path, precision: str, record_property: Record) -> None:
    """The network is small, and most of its latency is launches: what is shown is that everything works together."""
    options, policy = BuildOptions(precision=precision), MeasurementPolicy(disturbance=0.2)
    job = quick_job(tmp_path, device=GPU, runtime=f"torch:{GPU}", options=options, policy=policy, batch=64)
    manifest = whole_job(open_session(job), Silent()).manifest
    assert manifest.device.runtime == f"torch:{GPU}" and manifest.device.precision == precision
    assert manifest.compressed.layers < manifest.original.layers
    record_property(f"job in torch, {precision}: speed-up", round(manifest.speedup, 3))
    error = manifest.predicted_latency_ms / manifest.compressed.latency_ms - 1
    record_property(f"job in torch, {precision}: predicted over measured, less 1", round(error, 4))
