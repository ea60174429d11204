from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.estimation.cards import square, workloads
from trt_layermerge.estimation.card import ALGORITHMS
from trt_layermerge.estimation.device_files import MEASURED, read_card
from trt_layermerge.estimation.formulas import Shapes, gpu_ms, memory_ms, operation_ms
from trt_layermerge.estimation.workload import MemoryOperation, Workload

CARD = read_card(MEASURED)
SHEET, CONSTANTS = CARD.sheet, CARD.constants


def _times(*given: Workload) -> dict[str, np.ndarray]:
    return gpu_ms(Shapes.of(given, SHEET), SHEET, CONSTANTS)


@given(workloads())
def test_some_algorithm_does_every_convolution_in_positive_time(one: Workload) -> None:
    times = _times(one)
    assert list(times) == list(ALGORITHMS)
    assert 0 < min(column[0] for column in times.values()) < np.inf


@given(st.lists(workloads(), min_size=2, max_size=5))
def test_a_row_does_not_depend_on_its_neighbours(many: list[Workload]) -> None:
    together = _times(*many)
    for index, one in enumerate(many):
        for name, column in _times(one).items():
            np.testing.assert_array_equal(column[0], together[name][index])


@given(workloads(), st.integers(2, 4))
def test_more_images_take_longer(one: Workload, times: int) -> None:
    fewer, more = _times(one), _times(replace(one, batch=times * one.batch))
    assert all(more[name][0] >= fewer[name][0] for name in ALGORITHMS)


@given(workloads())
def test_nothing_is_faster_than_memory(one: Workload) -> None:
    moved = memory_ms(Shapes.of([one], SHEET), SHEET, CONSTANTS)[0]
    assert all(column[0] >= moved * (1 - 1e-12) for column in _times(one).values())


@given(workloads())
def test_implicit_gemm_is_no_faster_than_its_products_on_full_tiles(one: Workload) -> None:
    flops = 2 * one.batch * one.pixels * one.out_channels * one.in_channels // one.groups * np.prod(one.kernel)
    rate = (
        SHEET.peak * CONSTANTS.gemm * {"fp32": 1, "fp16": SHEET.fp16_speedup, "int8": SHEET.int8_speedup}[one.precision]
    )
    assert _times(one)["implicit-gemm"][0] >= 1e3 * flops / rate * (1 - 1e-9)


def test_implicit_gemm_by_hand() -> None:
    """M = 128 x 28 x 28 = 100352 and K = 64: 784 tiles of 128 x 64 in 12 waves are the best."""
    one = square(64, 64, 1, 28)
    busy = 12 * 2 * 128 * 64 * 64 * (1 + 16 * 192 / 8192) * 68 / (13.447e12 * CONSTANTS.gemm) * 1e3
    read, written = 4 * (100352 * 64 + 64 * 64), 4 * 100352 * 64
    moved = 1e3 / 616e9 * (read / CONSTANTS.read + written / CONSTANTS.write)
    assert _times(one)["implicit-gemm"][0] == pytest.approx((busy**3 + moved**3) ** (1 / 3), rel=1e-3)


def test_winograd_by_hand() -> None:
    """128 images of 14 x 14 tiles of 2 x 2: 784 blocks of tiles, 2 of channels, in 24 waves."""
    one = square(64, 64, 3, 28)
    busy = 24 * 68 * 16 * 2 * 32 * 32 * (64 + 8) / (13.447e12 * CONSTANTS.winograd) * 1e3
    read, written = 4 * (100352 * 64 + 9 * 64 * 64), 4 * 100352 * 64
    moved = 1e3 / 616e9 * (read / CONSTANTS.read + written / CONSTANTS.write)
    assert _times(one)["winograd"][0] == pytest.approx((busy**3 + moved**3) ** (1 / 3), rel=1e-3)


def test_fft_is_flat_from_9_to_13_taps_and_does_not_know_strides() -> None:
    flat = _times(square(96, 96, 9, 28), square(96, 96, 11, 28), square(96, 96, 13, 28))["fft"]
    assert flat.max() / flat.min() < 1.02
    plain, strided = _times(square(96, 96, 9, 28), square(96, 96, 9, 28, 2))["fft"]
    assert strided == pytest.approx(plain, rel=0.1) and strided <= plain  # less is written


@pytest.mark.parametrize(
    ("one", "able"),
    [
        (square(32, 32, 3, 28), {"implicit-gemm", "winograd", "fft"}),
        (square(32, 32, 3, 28, 2), {"implicit-gemm", "fft"}),
        (square(32, 32, 5, 28), {"implicit-gemm", "fft"}),
        (square(32, 32, 1, 28), {"implicit-gemm"}),
        (square(32, 32, 3, 28, groups=4), {"implicit-gemm"}),
        (square(32, 32, 3, 28, groups=32), {"depthwise"}),
        (square(32, 32, 3, 28, dilation=(2, 2)), {"implicit-gemm"}),
        (square(32, 32, 33, 56), {"implicit-gemm"}),
    ],
)
def test_who_does_what(one: Workload, able: set[str]) -> None:
    assert {name for name, column in _times(one).items() if np.isfinite(column[0])} == able


def test_a_residual_is_read_at_the_speed_of_memory() -> None:
    alone, added = (_times(square(64, 64, 1, 56, residual=one))["implicit-gemm"][0] for one in (False, True))
    assert alone < added < alone + operation_ms(MemoryOperation(128 * 64 * 56 * 56, 0), SHEET, CONSTANTS) * 1.001


def test_memory_operations_by_hand() -> None:
    million = MemoryOperation(10**6, 10**6)
    expected = 1e3 * 4e6 / 616e9 * (1 / CONSTANTS.read + 1 / CONSTANTS.write)
    assert operation_ms(million, SHEET, CONSTANTS) == pytest.approx(expected)
    assert operation_ms(replace(million, precision="fp16"), SHEET, CONSTANTS) == pytest.approx(expected / 2)
