"""The discretised recurrence, by hand; that it agrees with the frontier is shown in ``test_frontier``."""

from __future__ import annotations

from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.reference import discretised

SLOW = Item(0, 0, 1, "slow", "keep", 11, 1.0)
FAST = Item(0, 0, 1, "fast", "fit", 5, 0.5)
PROBLEM = Problem((1,), (SLOW, FAST), fixed_ns=-1, original_ns=20)


def test_latencies_are_rounded_up_to_bins() -> None:
    exact, rounded = discretised(PROBLEM, 10, bin_ns=1), discretised(PROBLEM, 10, bin_ns=5)
    assert exact is not None and (exact.items, exact.latency_ns, exact.objective) == ((SLOW,), 10, 1.0)
    assert rounded is not None and rounded.items == (FAST,)  # 11 ns are three bins of 5, and there are two


def test_there_may_be_no_plan() -> None:
    assert discretised(PROBLEM, 3, bin_ns=1) is None
    assert discretised(PROBLEM, -2, bin_ns=1) is None
