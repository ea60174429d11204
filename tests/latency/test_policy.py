from __future__ import annotations

import pytest

from trt_layermerge.latency.policy import MeasurementPolicy


@pytest.mark.parametrize(
    ("run_ns", "runs"), [(0, 200), (1, 200), (5_000, 200), (1e5, 50), (2e6, 3), (49e6, 3), (51e6, 1), (1e10, 1)]
)
def test_bursts_are_neither_short_nor_long(run_ns: float, runs: int) -> None:
    assert MeasurementPolicy().burst(run_ns) == runs
