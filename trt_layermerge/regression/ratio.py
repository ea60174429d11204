"""Ratios of measured latencies: how sure they are, and what they say against a tolerance.

What is compared was measured in different runs, so errors are taken as independent. Everything is in logarithms, where
a ratio is a difference, and twice as slow is as far from 1 as twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, log, log1p, sqrt
from statistics import NormalDist, median
from typing import Literal

Verdict = Literal["slower", "faster", "same", "unclear"]

FEWEST_SCATTERED = 9
"""Rows that it takes to tell what all have in common from what one has."""

_NORMAL = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Ratio:
    """A positive quantity and its interval: a latency, or what comes of dividing latencies by each other.

    Attributes:
        log: Natural logarithm of the best estimate.
        below: How far below it the interval reaches, in logarithms.
        above: How far above it.
    """

    log: float
    below: float
    above: float

    @classmethod
    def of(cls, estimate: float, low: float, high: float) -> Ratio:
        """From a positive estimate and the ends of its interval, ``0 < low <= estimate <= high``."""
        middle = log(estimate)
        return cls(middle, middle - log(low), log(high) - middle)

    def __truediv__(self, other: Ratio) -> Ratio:
        """The quotient of two that were measured independently, at the level of their intervals.

        The method of variance estimates recovery (Zou and Donner, Statistics in Medicine 27, 2008) for a difference of
        logarithms, which keeps the intervals' asymmetry.
        """
        return Ratio(self.log - other.log, hypot(self.below, other.above), hypot(self.above, other.below))

    def widened(self, factor: float) -> Ratio:
        """The same estimate with an interval so many times as wide, in logarithms."""
        return Ratio(self.log, factor * self.below, factor * self.above)

    def scattered(self, deviation: float) -> Ratio:
        """The same estimate, if besides what its interval knows it strays by a standard deviation, in logarithms."""
        reach = _NORMAL * deviation
        return Ratio(self.log, hypot(self.below, reach), hypot(self.above, reach))

    @property
    def value(self) -> float:
        """The best estimate."""
        return _exp(self.log)

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of its interval."""
        return _exp(self.log - self.below), _exp(self.log + self.above)

    def may_exceed(self, tolerance: float) -> bool:
        """Whether the interval reaches beyond ``1 + tolerance``."""
        return self.log + self.above > log1p(tolerance)


def verdict(likely: Ratio, sure: Ratio, tolerance: float) -> Verdict:
    """What a ratio of latencies, new over old, says.

    Args:
        likely: With its 95 % interval.
        sure: The same with the interval that a claim of change has to rest on; at least as wide.
        tolerance: Largest change that does not matter, such as 0.05; as a factor, so that both directions are alike.

    Returns:
        ``slower`` or ``faster`` where all of ``sure`` is beyond the tolerance. ``same`` where the estimate is within
        it and ``likely`` reaches no further from the estimate than the tolerance; a change of twice the tolerance would
        be told ``same`` in one of forty cases. Otherwise ``unclear``.
    """
    limit = log1p(tolerance)
    if sure.log - sure.below > limit:
        return "slower"
    if sure.log + sure.above < -limit:
        return "faster"
    if abs(likely.log) <= limit and max(likely.below, likely.above) <= limit:
        return "same"
    return "unclear"


def scatter(ratios: Sequence[Ratio]) -> float:
    """By how much ratios of rows that did not change stray more than their intervals say, in logarithms.

    An interval knows the noise of one run, not what differs from one process to the next: where memory lies, what else
    the machine does for minutes. That is a variance that all rows have besides their own, as in a meta-analysis with
    random effects. It is the smallest one with which half of the rows lie within the middle half of their
    distributions: rows that really changed do not raise it, while they are few.

    Args:
        ratios: New over baseline, less what all have in common, with 95 % intervals.

    Returns:
        A standard deviation; 0 for fewer than ``FEWEST_SCATTERED`` rows, which cannot tell it from a change.
    """
    if len(ratios) < FEWEST_SCATTERED:
        return 0.0
    quartile = NormalDist().inv_cdf(0.75)
    own = ((one.below + one.above) / (2 * _NORMAL) for one in ratios)
    beyond = [(one.log / quartile) ** 2 - deviation**2 for one, deviation in zip(ratios, own, strict=True)]
    return sqrt(max(median(beyond), 0.0))


def simultaneous(comparisons: int, samples: int) -> float:
    """How many times as wide 95 % intervals have to be so that, with 95 % probability, all of them hold at once.

    Bonferroni's inequality: each of them at the level 1 - 0.05 / comparisons. An interval of few samples does not know
    its own width well, which matters the more the higher the level is: with 30 samples, normal quantiles are exceeded
    more than twice as often as they should be at 1 in 20,000, and Student's with samples - 1 degrees of freedom are not
    (benchmarks/comparing.py). To studentise a median by an interval of order statistics is McKean's and Schrader's
    (Communications in Statistics: Simulation and Computation 13, 1984).

    Args:
        comparisons: How many intervals are looked at.
        samples: Samples behind the least sampled median of one comparison, at least 6.
    """
    return _student(1 - 0.025 / comparisons, samples - 1) / _NORMAL


def _exp(power: float) -> float:
    """The exponential, or the largest one that a float holds; only tables that someone made up come near."""
    return exp(min(power, 700.0))


def _student(probability: float, freedom: int) -> float:
    """Student's quantile, by its expansion in 1 / freedom (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
