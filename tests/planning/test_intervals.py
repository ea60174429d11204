"""Both tables of depth compression hold what looking at every division finds."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given

from tests.planning.interval_tables import Table, quickest, tables, worthiest
from trt_layermerge.planning.intervals import Interval, extended, fastest


@given(tables())
def test_stage_one_is_the_fastest_of_all_divisions(table: Table) -> None:
    length, latencies, _ = table
    intervals = fastest(length, latencies)
    for start in range(length):
        for end in range(start + 1, length + 1):
            best, interval = quickest(start, end, latencies), intervals.get((start, end))
            assert (best is None) == (interval is None)
            if interval is not None:
                assert interval.latency_ns == best == sum(latencies[block] for block in pairwise(interval.breaks))
                assert (interval.breaks[0], interval.breaks[-1]) == (start, end) == (interval.start, interval.end)


@given(tables())
def test_importance_is_extended_over_open_boundaries(table: Table) -> None:
    length, _, worth = table
    values = extended(length, worth)
    for start in range(length):
        for end in range(start + 1, length + 1):
            assert values.get((start, end)) == worthiest(start, end, length, worth)


def test_of_equal_arrangements_the_longest_last_merge_is_taken() -> None:
    latencies = {(0, 1): 1, (1, 2): 1, (0, 2): 2, (2, 3): 1, (1, 3): 2}
    assert fastest(3, latencies)[0, 3] == Interval(0, 3, 3, (0, 1, 3))
