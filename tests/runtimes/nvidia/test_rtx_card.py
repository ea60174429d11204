"""TensorRT-RTX on a card: a double's, with genuine headers on its plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.doubles.fixtures import DRIVER, Tell
from trt_layermerge.errors import ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.nvidia import cuda
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings
from trt_layermerge.runtimes.registry import get_runtime, require_running, runtime_kind
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

OPTIONS = BuildOptions()


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self, doubles: Tell) -> Iterator[Runtime]:
        doubles(run_us=50.0)
        yield get_runtime("tensorrt-rtx")


@pytest.fixture
def runtime(doubles: Tell) -> Runtime:
    doubles(run_us=50.0)
    return get_runtime("tensorrt-rtx")


def test_the_usual_target_is_the_card_that_is_here(doubles: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    for capability, target in (("7.5", "sm75"), ("8.9", "sm89"), ("9.0", "sm75")):
        there = replace(DRIVER, compute_capability=capability)
        monkeypatch.setattr(cuda, "driver", lambda there=there: there)
        assert runtime_kind("tensorrt-rtx").usual_target() == target


def test_the_card_is_described_not_the_target(runtime: Runtime) -> None:
    device = runtime.describe(OPTIONS)
    assert device.name == DRIVER.device and device.driver == DRIVER.version and device.compute_capability == "7.5"
    assert device.runtime == "tensorrt-rtx:sm75" and device.simulated and "kernels compiled before" in device.settings
    assert "CUDA graph" in device.timing and device.clocks == "by the driver"
    assert runtime.condition() is not None


@pytest.mark.parametrize("graph", [True, False])
def test_no_compilation_of_a_kernel_is_timed(runtime: Runtime, graph: bool) -> None:
    """On the double it takes 100 ms, a run 50 us; and the first run would fail within a graph."""
    engine = runtime.build(small_model(), BuildOptions(settings=CompilerSettings(cuda_graph=graph)))
    assert engine.time(20) == pytest.approx(50_000, rel=1e-3)


def test_kernels_are_kept_for_the_next_engine_and_another_release_begins_anew(runtime: Runtime, doubles: Tell) -> None:
    kind = runtime.kind
    path = kind.timing_cache(runtime.describe(OPTIONS), OPTIONS.settings)
    assert path is not None and not path.exists()
    runtime.build(small_model(), OPTIONS)
    first = path.read_bytes()
    runtime.build(small_model(), OPTIONS)
    assert path.read_bytes() == first, "nothing was compiled again"
    runtime.build(small_model(inputs=16, outputs=16), OPTIONS)
    assert path.read_bytes() != first
    path.write_bytes(b"not a cache")
    assert runtime.build(small_model(), OPTIONS).time(3).shape == (3,) and path.read_bytes() != b"not a cache"


def test_a_card_of_another_kind_runs_nothing_and_says_so(doubles: Tell, tmp_path) -> None:
    other = get_runtime("tensorrt-rtx:sm86")
    assert not other.runs and other.describe(OPTIONS).timing == "not timed" and other.condition() is None
    with pytest.raises(RuntimeNotAvailableError, match="for sm86 do not run on the GPU that is here, which is sm75"):
        require_running("tensorrt-rtx:sm86")
    with pytest.raises(RuntimeNotAvailableError, match="cannot be timed"):
        other.build(small_model(), OPTIONS).time(1)


def test_a_plan_that_the_library_refuses_is_told_with_its_words(runtime: Runtime, doubles: Tell) -> None:
    doubles(run_us=50.0, engine_refused=True)
    with pytest.raises(ModelError, match=r"cannot load the engine on this card: .*magic tag"):
        runtime.build(small_model(), OPTIONS)


def test_an_engine_for_several_batches_runs_all_of_them(runtime: Runtime) -> None:
    engine = runtime.build(small_model("batch"), BuildOptions(batches=(1, 8)), {"x": (4, 3, 8, 8)})
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32)
    whole = engine.run({"x": images})["y"]
    np.testing.assert_allclose(engine.run({"x": images[:3]})["y"], whole[:3], rtol=1e-5, atol=1e-6)


def test_all_that_running_lacks_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> cuda.CudaDriver:
        raise RuntimeNotAvailableError("there is no NVIDIA driver here", hint="install it")

    monkeypatch.setattr(cuda, "driver", none)
    monkeypatch.setattr(cuda, "is_installed", lambda name: False)
    with pytest.raises(RuntimeNotAvailableError, match="no NVIDIA driver here; neither pycuda nor cuda-bindings"):
        require_running("tensorrt-rtx")
