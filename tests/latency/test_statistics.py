from __future__ import annotations

from dataclasses import replace
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.latency.statistics import SMALLEST_SAMPLE, Timing, median_interval, pooled_spread

times = st.integers(min_value=0, max_value=10**12)
samples = st.lists(times, min_size=1, max_size=200)


@given(samples)
def test_the_numbers_are_in_order(values: list[int]) -> None:
    timing = Timing.of(values)
    assert min(values) <= timing.ci_low_ns <= timing.median_ns <= timing.ci_high_ns <= max(values)
    assert min(values) <= timing.p5_ns <= timing.p95_ns <= max(values)
    assert timing.samples == len(values) and timing.cv >= 0 and timing.relative_ci >= 0


@given(samples, st.data())
def test_builds_widen_an_interval_by_what_they_differ(values: list[int], data: st.DataObject) -> None:
    origins = data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values)))
    timing = Timing.of(values, origins, values)
    wide = timing.with_builds()
    assert timing.builds == len(set(origins)) and (timing.build_spread is None) is (timing.builds == 1)
    assert 0 <= wide.ci_low_ns <= timing.ci_low_ns and timing.ci_high_ns <= wide.ci_high_ns
    assert timing.median_ns == wide.median_ns <= timing.p90_ns <= timing.p99_ns <= max(values)
    assert (wide == timing) or timing.build_spread > 0


@given(st.integers(2, 6), st.integers(10, 60), st.floats(0, 0.2), st.integers(0, 2**32))
def test_what_samples_stray_by_is_not_taken_for_builds(builds: int, each: int, spread: float, seed: int) -> None:
    """Of builds that are alike it is next to nothing, of others what their medians differ by."""
    random = np.random.default_rng(seed)
    medians = 1e6 * (1 + spread * random.standard_normal(builds).clip(-2, 2))
    values = np.concatenate([median * (1 + 0.001 * random.standard_normal(each)) for median in medians])
    found = Timing.of(values, np.repeat(np.arange(builds), each).tolist()).build_spread
    assert found == pytest.approx(np.std(medians, ddof=1) / np.median(values), abs=0.003)


def test_builds_of_all_operations_are_pooled_by_how_many_there_were() -> None:
    timing = Timing.of([1e6] * 30)
    two, four = (replace(timing, builds=k, build_spread=s) for k, s in ((2, 0.04), (4, 0.02)))
    assert pooled_spread([timing]) is None and pooled_spread([timing, two]) == pytest.approx(0.04)
    assert pooled_spread([two, four]) == pytest.approx(((0.04**2 + 3 * 0.02**2) / 4) ** 0.5)


@given(samples, st.randoms())
def test_the_order_of_samples_does_not_matter(values: list[int], random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert median_interval(shuffled) == median_interval(values)


@given(st.integers(SMALLEST_SAMPLE, 400))
def test_the_interval_is_the_narrowest_of_at_least_95_percent(size: int) -> None:
    low, high = median_interval(range(1, size + 1))
    rank = int(low)
    assert high == size + 1 - rank

    def outside(k: int) -> float:
        return 2 * sum(comb(size, i) for i in range(k)) / 2**size

    assert outside(rank) <= 0.05 < outside(rank + 1)


def test_the_interval_holds_the_median_in_19_of_20_experiments() -> None:
    random, experiments, hits = np.random.default_rng(0), 2000, 0
    for _ in range(experiments):
        low, high = median_interval(random.lognormal(0, 1, 30))
        hits += low <= 1.0 <= high
    assert 0.94 <= hits / experiments <= 0.98


@pytest.mark.parametrize(("size", "low"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (30, 10), (100, 40), (2000, 956)])
def test_ranks_as_in_published_tables(size: int, low: int) -> None:
    assert median_interval(range(1, size + 1))[0] == low


def test_rounding_is_away_from_optimism() -> None:
    timing = Timing.of([100.2, 100.4])
    assert (timing.ci_low_ns, timing.median_ns, timing.ci_high_ns) == (100, 101, 101)


def test_no_samples_are_no_timing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        Timing.of([])


def test_zeros_are_a_timing() -> None:
    assert Timing.of([0, 0]).cv == 0.0
