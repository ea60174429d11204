"""TensorRT-RTX on a real card. Written without one, as all tests here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.pipeline.self_check import check_itself
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

pytestmark = pytest.mark.gpu("tensorrt-rtx")


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime("tensorrt-rtx")


@pytest.fixture
def runtime() -> Runtime:
    return get_runtime("tensorrt-rtx")


def test_the_device_is_no_double_and_its_engines_run(runtime: Runtime) -> None:
    assert runtime.runs and not runtime.describe(BuildOptions()).simulated


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_block_is_computed_in_what_it_is_written_in(
    runtime: Runtime, precision: str, record_property: Callable[[str, object], None]
) -> None:
    if precision not in runtime.precisions:
        pytest.skip(f"{runtime.name} has no {precision} convolutions")
    geometry = Geometry(64, 64, (3, 3), padding=(1, 1, 1, 1))
    model = candidate_model(Signature(8, (64, 28, 28), geometry, activation="relu", precision=precision))
    times = runtime.build(model, BuildOptions(precision=precision, isolated=True)).time(300)
    us = float(np.median(times)) / 1e3
    record_property(f"tensorrt-rtx: 3x3 convolution, 64 channels, 8x28x28, {precision}, us", us)
    assert times.max() < 100 * np.median(times), "no kernel was compiled while it was timed"


def test_kernels_are_kept_for_the_next_engine(runtime: Runtime) -> None:
    options = BuildOptions()
    path = runtime.kind.timing_cache(runtime.describe(options), options.settings)
    assert path is not None
    runtime.build(small_model(), options)
    first = path.read_bytes()
    runtime.build(small_model(), options)
    assert first and len(path.read_bytes()) >= len(first)


def test_a_self_check_succeeds(runtime: Runtime) -> None:
    found = check_itself(runtime, BuildOptions())
    assert found.merge_error < 1e-4 and found.engine_error < 1e-4
