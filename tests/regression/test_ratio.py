from __future__ import annotations

from math import exp, log, log1p
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.latency.statistics import Timing
from trt_layermerge.regression.ratio import FEWEST_SCATTERED, Ratio, scatter, simultaneous, verdict

SWAPPED = {"slower": "faster", "faster": "slower", "same": "same", "unclear": "unclear"}

logs = st.floats(-2, 2)
widths = st.floats(0, 1)
ratios = st.builds(Ratio, logs, widths, widths)


@given(ratios, st.floats(1, 4), st.floats(0.001, 0.5))
def test_the_reverse_of_slower_is_faster(ratio: Ratio, factor: float, tolerance: float) -> None:
    back = Ratio(0.0, 0.0, 0.0) / ratio
    assert verdict(back, back.widened(factor), tolerance) == SWAPPED[verdict(ratio, ratio.widened(factor), tolerance)]


@given(ratios, ratios)
def test_a_quotient_is_as_unsure_as_both_and_undone_by_the_reverse(one: Ratio, other: Ratio) -> None:
    quotient, back = one / other, other / one
    assert quotient.below >= max(one.below, other.above) and quotient.above >= max(one.above, other.below)
    assert (quotient.log, quotient.below, quotient.above) == (-back.log, back.above, back.below)


@given(st.floats(0.1, 10), st.floats(0.5, 1), st.floats(1, 2))
def test_an_interval_comes_out_as_it_went_in(estimate: float, low: float, high: float) -> None:
    ratio = Ratio.of(estimate, low * estimate, high * estimate)
    assert (ratio.value, *ratio.interval) == pytest.approx((estimate, low * estimate, high * estimate))


@pytest.mark.parametrize(
    ("value", "within", "sure", "says"),
    [
        (1.20, 0.05, 0.10, "slower"),
        (1.20, 0.05, 0.16, "unclear"),
        (0.80, 0.05, 0.10, "faster"),
        (1.00, 0.04, 0.20, "same"),
        (1.04, 0.04, 0.20, "same"),
        (1.06, 0.04, 0.20, "unclear"),
        (1.00, 0.06, 0.20, "unclear"),
    ],
)
def test_verdicts_at_a_tolerance_of_5_percent(value: float, within: float, sure: float, says: str) -> None:
    likely = Ratio(log(value), within, within)
    assert verdict(likely, likely.widened(sure / within), 0.05) == says


@given(st.floats(0.05, 0.5), st.floats(0, 1))
def test_same_keeps_its_word(tolerance: float, share: float) -> None:
    """The interval of what is ``same`` reaches no further than twice the tolerance."""
    likely = Ratio(share * log1p(tolerance), log1p(tolerance), log1p(tolerance))
    assert verdict(likely, likely, tolerance) == "same"
    assert likely.interval[1] <= (1 + tolerance) ** 2 + 1e-9


@pytest.mark.parametrize(("comparisons", "samples", "quantile"), [(1, 30, 2.0452), (50, 30, 3.6594), (50, 11, 4.5869)])
def test_widths_are_students(comparisons: int, samples: int, quantile: float) -> None:
    """Published quantiles: 0.975 and 0.9995 with 29 and 10 degrees of freedom."""
    assert simultaneous(comparisons, samples) * 1.959964 == pytest.approx(quantile, rel=2e-3)


@given(st.integers(1, 10_000), st.integers(6, 500))
def test_more_rows_and_fewer_samples_need_wider_intervals(comparisons: int, samples: int) -> None:
    width = simultaneous(comparisons, samples)
    assert 1 < width < simultaneous(comparisons + 1, samples)
    assert simultaneous(comparisons, samples + 1) < width


@pytest.mark.parametrize("noise", ["normal", "skewed", "heavy tails"])
def test_one_row_of_a_thousand_is_wrong_once_in_twenty_thousand_times(noise: str) -> None:
    """Claims about equal medians at the level of 1,000 rows."""
    random, comparisons, trials = np.random.default_rng(0), 1000, 120_000
    draw = {
        "normal": lambda: 0.02 * random.standard_normal((2, trials, 30)),
        "skewed": lambda: np.log1p(0.05 * random.exponential(size=(2, trials, 30))),
        "heavy tails": lambda: 0.01 * random.standard_t(2, (2, trials, 30)),
    }[noise]
    samples, width = np.sort(draw(), axis=-1), simultaneous(comparisons, 30)
    middle = np.median(samples, axis=-1)
    below, above = middle - samples[..., 9], samples[..., 20] - middle  # ranks of 30 samples; see test_statistics
    moved = middle[0] - middle[1]
    wrong = (moved > width * np.hypot(below[0], above[1])) | (-moved > width * np.hypot(above[0], below[1]))
    assert wrong.sum() <= 10  # 6 expected at the stated level; normal quantiles make it 13 to 30


def test_the_ranks_above_are_those_of_a_timing() -> None:
    samples = np.arange(1, 31) * 1000
    timing = Timing.of(samples)
    assert (timing.ci_low_ns, timing.ci_high_ns) == (samples[9], samples[20])
    assert exp(Ratio.of(timing.median_ns, timing.ci_low_ns, timing.ci_high_ns).log) == pytest.approx(timing.median_ns)


@given(st.lists(st.tuples(st.floats(-0.5, 0.5), st.floats(0, 0.1)), min_size=FEWEST_SCATTERED, max_size=40))
def test_with_their_scatter_half_of_the_ratios_lie_in_the_middle_half(drawn: list[tuple[float, float]]) -> None:
    ratios = [Ratio(middle, width, width) for middle, width in drawn]
    found = scatter(ratios)
    assert found >= 0 and scatter([Ratio(-one.log, one.above, one.below) for one in ratios]) == found
    quartile, normal = NormalDist().inv_cdf(0.75), NormalDist().inv_cdf(0.975)
    wider = [one.scattered(1.001 * found + 1e-9) for one in ratios]
    inside = [abs(one.log) <= quartile / normal * one.above for one in wider]
    assert sum(inside) >= len(inside) / 2
    assert all(one.above >= other.above for one, other in zip(wider, ratios, strict=True))


def test_few_ratios_scatter_not() -> None:
    ratios = [Ratio(0.1 * (-1) ** number, 0.01, 0.01) for number in range(FEWEST_SCATTERED)]
    assert scatter(ratios) == pytest.approx(0.1 / NormalDist().inv_cdf(0.75), rel=0.01)
    assert scatter(ratios[1:]) == 0.0 and ratios[0].scattered(0.0) == ratios[0]
