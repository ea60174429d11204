from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.estimation.cards import square, workloads
from trt_layermerge.estimation.card import TIMING_MODES
from trt_layermerge.estimation.device_files import MEASURED, device_names, read_card
from trt_layermerge.estimation.latency_model import UNSEEN, Estimate, LatencyModel
from trt_layermerge.estimation.tactic_sources import algorithms_of
from trt_layermerge.estimation.workload import MemoryOperation, Workload

CARD = read_card(MEASURED)


def _one(workload: Workload, device: str = MEASURED, *way: Any) -> Estimate:
    (found,) = LatencyModel(read_card(device), *way).convolutions([workload])
    return found


@given(
    workloads(),
    st.sampled_from(device_names()),
    st.sampled_from(["tensorrt-8.4", "tensorrt-10", "tensorrt-11.4.0.106"]),
    st.sampled_from(TIMING_MODES),
)
def test_every_estimate_lies_in_its_interval(one: Workload, device: str, library: str, timing: Any) -> None:
    found = _one(one, device, library, timing)
    assert 0 < found.low_ns <= found.latency_ns <= found.high_ns


def test_the_call_is_of_the_timing_mode_and_no_block_in_an_engine_pays_it() -> None:
    block = square(96, 96, 3, 28)
    called, run, amid = (_one(block, MEASURED, "tensorrt-8.4", timing).latency_ns for timing in TIMING_MODES)
    assert called - run == pytest.approx(1e6 * (CARD.constants.torch_call_ms - CARD.constants.engine_ms), abs=2)
    assert run - amid == pytest.approx(1e6 * (CARD.constants.engine_ms - CARD.constants.amid_network_ms), abs=2)
    assert CARD.constants.amid_network_ms < CARD.constants.torch_call_ms / 50


@pytest.mark.parametrize(
    ("library", "fft"),
    [
        ("tensorrt-8.0", True),
        ("tensorrt-8.4", True),
        ("tensorrt-8.5.3", True),
        ("tensorrt-8.6", False),
        ("tensorrt-10", False),
        ("tensorrt-11.4.0.106", False),
    ],
)
def test_the_version_picks_the_algorithms(library: str, fft: bool) -> None:
    assert ("fft" in algorithms_of(library)) is fft
    assert _one(square(96, 96, 9, 28), MEASURED, library).algorithm == ("fft" if fft else "implicit-gemm")


@pytest.mark.parametrize("library", ["tensorrt", "cudnn-8.9", "tensorrt-rtx-1.7", "onnxruntime-1.20", ""])
def test_other_libraries_are_refused(library: str) -> None:
    with pytest.raises(ValueError, match="not TensorRT with a version"):
        algorithms_of(library)


@pytest.mark.parametrize(
    ("one", "sure"),
    [
        (square(96, 96, 3, 28), "calibrated"),
        (square(96, 96, 3, 28, batch=64), "calibrated"),
        (square(96, 96, 3, 28, groups=96), "calibrated"),
        (square(96, 96, 3, 28, batch=1), "uncalibrated"),
        (square(96, 96, 3, 28, batch=1024), "uncalibrated"),
        (square(96, 96, 3, 28, precision="fp16"), "uncalibrated"),
        (square(96, 96, 3, 28, precision="int8"), "uncalibrated"),
        (square(96, 96, 3, 28, dilation=(2, 2)), "uncalibrated"),
        (square(96, 96, 3, 28, groups=4), "uncalibrated"),
        (square(96, 96, 5, 28, groups=96), "uncalibrated"),
        (square(96, 96, 3, 28, residual=True), "uncalibrated"),
        (square(96, 96, 13, 28), "uncalibrated"),
        (square(4096, 96, 1, 28), "uncalibrated"),
        (square(96, 96, 3, 512), "uncalibrated"),
    ],
)
def test_what_was_not_seen_is_not_called_calibrated(one: Workload, sure: str) -> None:
    found, known = _one(one), _one(square(96, 96, 3, 28))
    assert found.calibrated == sure
    if sure == "uncalibrated":
        assert found.high_ns / found.low_ns > 2 > known.high_ns / known.low_ns
        assert _one(one, "t4").calibrated == "uncalibrated"
    else:
        assert _one(one, "t4").calibrated == "transferred"


def test_what_nobody_compared_is_within_a_factor_of_three_at_best() -> None:
    for one in (square(96, 96, 3, 28, dilation=(2, 2)), square(96, 96, 3, 28, residual=True)):
        found = _one(one)
        assert found.high_ns / found.latency_ns > 2.9 and found.latency_ns / found.low_ns > 2.9
    moved = LatencyModel(CARD).operation(MemoryOperation(10**8, 10**8))
    assert (moved.algorithm, moved.calibrated) == ("memory", "uncalibrated")
    assert moved.high_ns / moved.latency_ns == pytest.approx(3, rel=0.01)
    assert UNSEEN.rows == 0


def test_a_call_hides_what_a_short_convolution_takes() -> None:
    """A share of a row that is a call by nine tenths is nine times that share of the convolution."""
    short, long = square(16, 16, 1, 7), square(960, 960, 1, 28)
    for one, least, most in ((short, 1.3, 10.0), (long, 1.0, 1.15)):
        called, amid = (_one(one, MEASURED, "tensorrt-8.4", timing) for timing in ("torch-call", "amid-network"))
        assert called.high_ns / called.latency_ns < 1.15
        assert least < amid.high_ns / amid.latency_ns < most


def test_a_card_that_nobody_looked_at_is_less_sure_than_one_that_was_measured() -> None:
    one = square(96, 96, 3, 28)
    known, other = _one(one), _one(one, "rtx-2080")
    assert other.high_ns / other.low_ns > 1.5 * known.high_ns / known.low_ns
    assert 1 < other.latency_ns / known.latency_ns < 2  # the smaller card


def test_kernels_of_an_operation_are_launched_one_by_one() -> None:
    once, thrice = (
        LatencyModel(CARD, timing="amid-network").operation(MemoryOperation(10, 10, kernels=count)) for count in (1, 3)
    )
    assert thrice.latency_ns - once.latency_ns == pytest.approx(2e6 * CARD.constants.amid_network_ms, abs=2)


def test_a_constant_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="gemm"):
        replace(CARD.constants, gemm=0.0)
