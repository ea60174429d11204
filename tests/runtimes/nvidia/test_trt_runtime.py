"""TensorRT's runtime, on a double that does as it is told; no GPU has run any of this."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.doubles.fixtures import Tell
from trt_layermerge.errors import (
    ExitCode,
    IncompatibleError,
    InputError,
    ModelError,
    RuntimeNotAvailableError,
    UsageError,
)
from trt_layermerge.files import sha256
from trt_layermerge.runtimes.base import BuildOptions, Condition, Runtime
from trt_layermerge.runtimes.nvidia.building import BuildRequest, build
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model, small_reference

RELEASES = ["10.9.0.34", "10.16.1.11", "11.4.0.106"]


@pytest.fixture
def runtime(doubles: Tell) -> Runtime:
    return get_runtime("tensorrt")


def image(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((batch, 3, 8, 8)).astype(np.float32)


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The small model, its inside in float16."""
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float16)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self, doubles: Tell) -> Runtime:
        return get_runtime("tensorrt")


@pytest.mark.parametrize("release", RELEASES)
def test_one_path_serves_all_releases(release: str, doubles: Tell) -> None:
    doubles(version=release)
    runtime = get_runtime("tensorrt")
    engine = runtime.build(small_model(), BuildOptions())
    np.testing.assert_allclose(engine.run({"x": image()})["y"], small_reference(image()), rtol=1e-3, atol=1e-4)
    assert engine.describe().runtime_version == release


@pytest.mark.parametrize("release", ["8.6.1", "10.8.0.43"])
def test_older_releases_are_refused(release: str, doubles: Tell) -> None:
    doubles(version=release)
    with pytest.raises(RuntimeNotAvailableError, match=release) as caught:
        get_runtime("tensorrt")
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE and "pip install" in str(caught.value.hint)


def test_what_a_double_times_is_called_simulated(runtime: Runtime) -> None:
    device = runtime.describe(BuildOptions())
    assert device.simulated and "Simulated" in device.name and device.driver == "580.00"


class TestBuilding:
    def failure(self, runtime: Runtime, model: onnx.ModelProto | None = None, **options: object) -> ModelError:
        with pytest.raises(ModelError) as caught:
            runtime.build(model or small_model(), BuildOptions(**options))
        assert caught.value.exit_code is ExitCode.BAD_INPUT
        return caught.value

    def test_the_parsers_error_names_the_node(self, runtime: Runtime, doubles: Tell) -> None:
        model = small_model()
        model.graph.node[1].name = "after_conv"
        doubles(parser_refuses="Relu")
        message = self.failure(runtime, model).message
        assert "'after_conv'" in message and "Relu" in message and "No importer registered" in message

    def test_a_builder_that_gives_up_is_quoted(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(builder_fails="Could not find any implementation for node {ForeignNode[conv1]}")
        assert "Could not find any implementation for node {ForeignNode[conv1]}" in self.failure(runtime).message

    def test_memory_that_ran_out_is_told_with_the_tactics_that_were_skipped(
        self, runtime: Runtime, doubles: Tell
    ) -> None:
        doubles(
            skipped_tactics=2, builder_fails="[virtualMemoryBuffer.cpp::resizePhysical] OutOfMemory (no further info)"
        )
        message = self.failure(runtime).message
        assert "OutOfMemory" in message and message.count("insufficient to use tactic") == 2

    def test_a_crash_loses_one_engine(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(abort=True)
        message = self.failure(runtime).message
        assert "SIGABRT" in message and "about to do something terrible" in message
        doubles(abort=False)
        assert runtime.build(small_model(), BuildOptions()).time(1) > 0

    def test_a_build_that_takes_too_long_is_ended(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(build_seconds=600)
        assert "took longer than" in self.failure(runtime, settings=TensorRtSettings(build_seconds=3)).message

    def test_a_builder_that_does_not_start_is_no_fault_of_the_model(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(no_builder=True)
        with pytest.raises(RuntimeNotAvailableError, match="CUDA initialization failure"):
            runtime.build(small_model(), BuildOptions())

    def test_precision_that_was_dropped_is_an_error(self, runtime: Runtime, doubles: Tell) -> None:
        assert runtime.build(half(small_model()), BuildOptions(precision="fp16")).time(1) > 0
        doubles(drops_precision=True)
        assert "fp16" in self.failure(runtime, half(small_model()), precision="fp16").message

    def test_a_range_of_batches_is_one_engine(self, runtime: Runtime) -> None:
        engine = runtime.build(small_model("batch"), BuildOptions(batches=(1, 6)), {"x": (4, 3, 8, 8)})
        for batch in (1, 4, 6):
            found = engine.run({"x": image(batch)})["y"]
            np.testing.assert_allclose(found, small_reference(image(batch)), rtol=1e-3, atol=1e-4)
        with pytest.raises(ModelError, match="is not between"):
            engine.run({"x": image(7)})

    def test_skipped_tactics_of_a_build_that_succeeds_are_recorded(self, doubles: Tell, tmp_path: Path) -> None:
        doubles(skipped_tactics=3)
        outcome = build(request(tmp_path, small_model()), 60)
        assert len(outcome.skipped_tactics) == 3 and outcome.simulated and outcome.version == "11.4.0.106"


class TestLoading:
    def test_an_engine_of_another_release_is_refused(self, runtime: Runtime, doubles: Tell, tmp_path: Path) -> None:
        runtime.build(small_model(), BuildOptions()).save(tmp_path / "engine")
        doubles(version="10.16.1.11")
        with pytest.raises(ModelError, match="kSERIALIZATION_VERSION"):
            runtime.load(tmp_path / "engine", BuildOptions())

    def test_an_engine_that_does_not_fit_the_gpu_is_refused(
        self, runtime: Runtime, doubles: Tell, tmp_path: Path
    ) -> None:
        runtime.build(small_model(), BuildOptions()).save(tmp_path / "engine")
        doubles(memory_bytes=100)
        with pytest.raises(ModelError, match=r"out of memory \(cudaErrorMemoryAllocation\)"):
            runtime.load(tmp_path / "engine", BuildOptions())


class TestTiming:
    @pytest.mark.parametrize("cuda_graph", [True, False])
    @pytest.mark.parametrize("run_us", [3, 50, 1700])
    def test_the_gpus_clock_decides(self, runtime: Runtime, doubles: Tell, run_us: int, cuda_graph: bool) -> None:
        doubles(run_us=run_us)
        times = runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(cuda_graph=cuda_graph))).time(7)
        assert times.shape == (7,) and (np.abs(times - 1000 * run_us) <= 1).all()

    def test_noise_is_seen(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(run_us=1000, noise=0.5)
        times = runtime.build(small_model(), BuildOptions()).time(30)
        assert 1e6 <= times.min() < times.max() <= 1.5e6 and np.median(times) > 1.1e6

    def test_a_graph_is_another_way_of_timing(self, runtime: Runtime) -> None:
        plain = BuildOptions(settings=TensorRtSettings(cuda_graph=False))
        assert runtime.describe(plain).timing != runtime.describe(BuildOptions()).timing

    def test_a_gpu_that_is_lost_is_an_error(self, runtime: Runtime, doubles: Tell) -> None:
        engine = runtime.build(small_model(), BuildOptions())
        doubles(lost_after=0)
        with pytest.raises(ModelError, match=r"run the engine|unspecified launch failure"):
            engine.time(3)


class TestCondition:
    def test_what_nvml_tells(self, runtime: Runtime, doubles: Tell) -> None:
        assert runtime.condition() == Condition(1545, 61, 180.0, ())
        doubles(reasons=0x40 | 0x4, power_mw=None)
        assert runtime.condition() == Condition(1545, 61, None, ("too hot (hardware)",))

    def test_without_nvml_nothing_is_told(self, doubles: Tell) -> None:
        doubles(nvml=False)
        runtime = get_runtime("tensorrt")
        assert runtime.condition() is None and runtime.describe(BuildOptions()).clocks == "not told"

    def test_clocks_are_locked_only_where_that_is_permitted(self, runtime: Runtime, doubles: Tell) -> None:
        options = BuildOptions(settings=TensorRtSettings(lock_clocks_mhz=1350))
        with pytest.raises(RuntimeNotAvailableError, match="Insufficient Permissions"):
            runtime.describe(options)
        doubles(may_lock_clocks=True)
        assert runtime.describe(options).clocks == "locked at 1350 MHz"


def request(folder: Path, model: onnx.ModelProto, name: str = "model") -> BuildRequest:
    onnx.save(model, folder / f"{name}.onnx")
    shapes = {"x": ((2, 3, 8, 8),) * 3}
    return BuildRequest(
        "tensorrt", folder / f"{name}.onnx", folder / f"{name}.plan", shapes, timing_cache=folder / "device.timing"
    )


class TestTimingCache:
    def test_builds_at_once_keep_each_others_timings(self, doubles: Tell, tmp_path: Path) -> None:
        doubles(build_seconds=0.5)
        requests = []
        for number in range(3):
            model = small_model()
            model.graph.node[0].name = f"conv{number}"
            requests.append(request(tmp_path, model, f"model{number}"))
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda one: build(one, 120), requests))
        assert (tmp_path / "device.timing").read_bytes().count(b": ") == 2 + 3 + 1, "header, convolutions, activation"

    @pytest.mark.parametrize("content", [b"not a cache", b"\0" * 64])
    def test_a_damaged_cache_is_set_aside(self, doubles: Tell, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "device.timing").write_bytes(content)
        build(request(tmp_path, small_model()), 60)
        assert (tmp_path / "device.timing.refused").read_bytes() == content
        assert (tmp_path / "device.timing").read_bytes().startswith(b"DOUBLE TIMING CACHE")

    def test_a_cache_of_another_release_is_set_aside(self, doubles: Tell, tmp_path: Path) -> None:
        doubles(version="10.16.1.11")
        build(request(tmp_path, small_model()), 60)
        before = (tmp_path / "device.timing").read_bytes()
        doubles(version="11.4.0.106")
        build(request(tmp_path, small_model()), 60)
        assert (tmp_path / "device.timing.refused").read_bytes() == before
        assert b"11.4.0.106" in (tmp_path / "device.timing").read_bytes()


def another_model() -> onnx.ModelProto:
    """One with another node, by which the double knows tactics."""
    model = small_model()
    model.graph.node[0].name = "another"
    return model


class TestReplay:
    """A cache that decides alone."""

    @pytest.fixture
    def cache(self, runtime: Runtime, tmp_path: Path) -> Path:
        runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(timing_cache=tmp_path / "device.timing")))
        return tmp_path / "device.timing"

    def options(self, cache: Path, **more: object) -> BuildOptions:
        return BuildOptions(settings=TensorRtSettings(timing_cache=cache, cache_only=True, **more))

    @pytest.mark.parametrize("release", RELEASES)
    def test_what_it_holds_is_built_and_it_is_not_written(self, release: str, doubles: Tell, tmp_path: Path) -> None:
        doubles(version=release)
        runtime, path = get_runtime("tensorrt"), tmp_path / "device.timing"
        runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(timing_cache=path)))
        path.chmod(0o400)
        before = path.read_bytes()
        assert runtime.build(small_model(), self.options(path)).time(1) > 0
        assert path.read_bytes() == before and not path.with_name("device.timing.refused").exists()

    @pytest.mark.parametrize("anew", [False, True])
    @pytest.mark.parametrize("release", RELEASES)
    def test_what_it_lacks_is_told_and_not_timed(self, release: str, anew: bool, doubles: Tell, tmp_path: Path) -> None:
        doubles(version=release)
        runtime, path = get_runtime("tensorrt"), tmp_path / "device.timing"
        runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(timing_cache=path)))
        before = path.read_bytes()
        with pytest.raises(IncompatibleError, match=r"device.timing lacks a tactic") as caught:
            runtime.build(another_model(), replace(self.options(path), anew=anew))
        assert "without --cache-only" in str(caught.value.hint) and path.read_bytes() == before

    @pytest.mark.parametrize("content", [b"", b"not a cache", b"\0" * 64])
    def test_one_that_is_damaged_is_refused_and_left_alone(
        self, runtime: Runtime, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "device.timing"
        path.write_bytes(content)
        with pytest.raises(IncompatibleError, match="cannot be replayed"):
            runtime.build(small_model(), self.options(path))
        assert path.read_bytes() == content and list(tmp_path.glob("*.refused")) == []

    def test_one_of_another_release_is_refused(self, cache: Path, doubles: Tell) -> None:
        doubles(version="10.16.1.11")
        with pytest.raises(IncompatibleError, match="another device or release"):
            get_runtime("tensorrt").build(small_model(), self.options(cache))

    def test_one_that_is_not_there_is_bad_input(self, runtime: Runtime, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"cannot read the timing cache .*nowhere"):
            runtime.describe(self.options(tmp_path / "nowhere"))

    def test_its_hash_is_in_the_key_and_may_not_change_while_a_command_runs(
        self, runtime: Runtime, cache: Path
    ) -> None:
        told = runtime.describe(self.options(cache)).settings
        assert f"tactics of timing cache {sha256(cache)[:16]} alone" in told
        cache.write_bytes(cache.read_bytes() + b" ")
        assert runtime.describe(self.options(cache)).settings == told
        with pytest.raises(IncompatibleError, match="has changed since it was first read"):
            runtime.build(small_model(), self.options(cache))
        assert get_runtime("tensorrt").describe(self.options(cache)).settings != told

    @pytest.mark.parametrize("more", [{"timing_cache": None}, {"optimization_level": 0}])
    def test_what_would_replay_nothing_is_refused(self, more: dict[str, object]) -> None:
        with pytest.raises(UsageError, match="--cache-only"):
            TensorRtSettings(**{"timing_cache": Path("c"), "cache_only": True} | more)

    def test_builds_anew_leave_the_cache_alone(self, runtime: Runtime, cache: Path) -> None:
        before = cache.read_bytes()
        settings = TensorRtSettings(timing_cache=cache)
        runtime.build(another_model(), BuildOptions(settings=settings, anew=True))
        assert cache.read_bytes() == before
        runtime.build(another_model(), BuildOptions(settings=settings))
        assert cache.read_bytes() != before


class TestBuildRoute:
    def test_its_knobs_are_set_and_told(self, runtime: Runtime, doubles: Tell) -> None:
        doubles(run_us=100, knobs={"-slice_fusion=off": 0.5})
        engine = runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(build_route="-slice_fusion=off")))
        assert np.median(engine.time(5)) == 50_000
        assert "build route -slice_fusion=off" in engine.describe().settings

    @pytest.mark.parametrize(("release", "route"), [("10.16.1.11", "-slice_fusion=off"), ("11.4.0.106", "-unknown=1")])
    def test_one_that_the_library_does_not_take_is_refused(self, release: str, route: str, doubles: Tell) -> None:
        doubles(version=release, knobs={"-slice_fusion=off": 0.5})
        with pytest.raises(IncompatibleError, match=f"tensorrt {release} does not take the build route '{route}'"):
            get_runtime("tensorrt").build(small_model(), BuildOptions(settings=TensorRtSettings(build_route=route)))
