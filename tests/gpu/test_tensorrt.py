"""TensorRT on a real GPU. Written without one: what fails here on its first run is to be believed over the double."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trt_layermerge.errors import IncompatibleError
from trt_layermerge.pipeline.self_check import check_itself
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

pytestmark = pytest.mark.gpu("tensorrt")


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime("tensorrt")


@pytest.fixture
def runtime() -> Runtime:
    return get_runtime("tensorrt")


def test_the_device_is_no_double(runtime: Runtime) -> None:
    assert not runtime.describe(BuildOptions()).simulated


def test_a_graph_and_queued_runs_take_about_as_long(runtime: Runtime) -> None:
    model, options = small_model(), BuildOptions()
    graph = runtime.build(model, options).time(500)
    queued = runtime.build(model, replace(options, settings=TensorRtSettings(cuda_graph=False))).time(500)
    assert 0.2 < np.median(graph) / np.median(queued) < 1.5


def test_an_engine_for_several_batches_runs_all_of_them(runtime: Runtime) -> None:
    options = BuildOptions(batches=(1, 8))
    engine = runtime.build(small_model("batch"), options, {"x": (4, 3, 8, 8)})
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    whole = engine.run({"x": images})["y"]
    for batch in (1, 3, 8):
        np.testing.assert_allclose(engine.run({"x": images[:batch]})["y"], whole[:batch], rtol=1e-3, atol=1e-4)


def test_a_second_build_reads_the_timing_cache_of_the_first(runtime: Runtime, tmp_path: Path) -> None:
    options = BuildOptions(settings=TensorRtSettings(timing_cache=tmp_path / "cache"))
    runtime.build(small_model(), options)
    first = (tmp_path / "cache").read_bytes()
    assert first
    runtime.build(small_model(), options)
    assert len((tmp_path / "cache").read_bytes()) >= len(first)


def test_a_cache_is_replayed_and_what_it_lacks_is_told(runtime: Runtime, tmp_path: Path, record_property) -> None:
    usual = TensorRtSettings(timing_cache=tmp_path / "cache")
    runtime.build(small_model(), BuildOptions(settings=usual))
    before, only = (tmp_path / "cache").read_bytes(), BuildOptions(settings=replace(usual, cache_only=True))
    assert runtime.build(small_model(), only).time(1) > 0 and (tmp_path / "cache").read_bytes() == before
    with pytest.raises(IncompatibleError) as caught:
        runtime.build(small_model(outputs=64), only)
    record_property("timing cache, a miss", caught.value.message)
    assert "lacks a tactic" in caught.value.message


def test_requests_take_longer_than_runs_and_layers_together_about_as_long(runtime: Runtime, record_property) -> None:
    engine = runtime.build(small_model(), BuildOptions())
    run, host = np.median(engine.time(200)), np.median(runtime.host_times(engine, 200))
    layers = {name: float(np.median(times)) for name, times in runtime.layer_times(engine, 50).items()}
    for name, value in {"run, us": run / 1e3, "request by the host, us": host / 1e3, "layers, ms": layers}.items():
        record_property(f"TensorRT: {name}", value)
    assert host > run and layers


def test_a_self_check_succeeds(runtime: Runtime) -> None:
    found = check_itself(runtime, BuildOptions())
    assert found.merge_error < 1e-4 and found.engine_error < 1e-4 and found.seconds < 60


def test_the_doctor_finds_nothing_missing_that_is_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trt_layermerge.cli.main", "doctor", "--runtime", "tensorrt"], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
