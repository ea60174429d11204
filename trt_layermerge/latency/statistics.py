"""From samples of a latency to what is known about it: the median, how sure it is, how far samples stray.

Order statistics only: no distribution is assumed, for the latencies of a machine that does other things too follow
none. Builds alone are taken as draws with a variance: there are too few of them for anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, floor, hypot, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

SMALLEST_SAMPLE = 6
"""Fewer samples than this have no 95 % interval: all of them lie on one side of the median with probability 2^(1-n)."""

HALF_WIDTH = 1.96
"""Half the width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True)
class Timing:
    """What is known about one latency; times in ns, rounded away from optimism.

    Attributes:
        median_ns: Median of the samples, rounded up.
        ci_low_ns: Lower end of the 95 % confidence interval of the median, rounded down.
        ci_high_ns: Upper end, rounded up.
        p5_ns: 5th percentile of the samples, rounded down.
        p95_ns: 95th percentile of the samples, rounded up.
        cv: Coefficient of variation: standard deviation over mean.
        samples: Number of samples.
        builds: Number of independent builds they come from.
        p90_ns: 90th percentile of single runs; ``None`` where only samples are known.
        p99_ns: 99th percentile of single runs; the slowest, where there are fewer than 100.
        build_spread: Standard deviation from build to build, as a share of the median, without what samples of one
            build stray by; ``None`` with one build.
    """

    median_ns: int
    ci_low_ns: int
    ci_high_ns: int
    p5_ns: int
    p95_ns: int
    cv: float
    samples: int
    builds: int = 1
    p90_ns: int | None = None
    p99_ns: int | None = None
    build_spread: float | None = None

    @classmethod
    def of(cls, samples: ArrayLike, origins: Sequence[int] | None = None, runs: ArrayLike | None = None) -> Timing:
        """Summarise independent samples, in ns.

        Args:
            samples: Medians of a few runs each.
            origins: Which build each of them is of; ``None`` for one.
            runs: The single runs.

        Raises:
            ValueError: There is no sample.
        """
        unordered = np.asarray(samples, np.float64)
        ordered = np.sort(unordered)
        low, high = median_interval(ordered)
        p5, median, p95 = np.percentile(ordered, (5, 50, 95))
        p90, p99 = (
            (None, None) if runs is None else map(ceil, np.percentile(np.asarray(runs), (90, 99), method="higher"))
        )
        builds = np.zeros(len(ordered), int) if origins is None else np.asarray(origins)
        parts = [unordered[builds == build] for build in np.unique(builds)]
        return cls(
            median_ns=ceil(median),
            ci_low_ns=floor(low),
            ci_high_ns=ceil(high),
            p5_ns=floor(p5),
            p95_ns=ceil(p95),
            cv=round(float(ordered.std() / ordered.mean()), 6) if ordered.any() else 0.0,
            samples=len(ordered),
            builds=len(parts),
            p90_ns=p90,
            p99_ns=p99,
            build_spread=round(float(_spread(parts) / max(median, 1.0)), 6) if len(parts) > 1 else None,
        )

    @property
    def relative_ci(self) -> float:
        """Half the width of the confidence interval over the median."""
        return (self.ci_high_ns - self.ci_low_ns) / 2 / max(self.median_ns, 1)

    def with_builds(self, spread: float | None = None) -> Timing:
        """With an interval that holds 95 % of builds, too.

        Args:
            spread: From build to build, as a share of the median; ``None`` for what these builds differ by.
        """
        share = self.build_spread if spread is None else spread
        return self.widened(HALF_WIDTH * share) if share else self

    def widened(self, share: float) -> Timing:
        """With an interval that also holds what it is unsure by besides: so large a share of the median, either way."""
        low, high = (hypot(share * self.median_ns, end - self.median_ns) for end in (self.ci_low_ns, self.ci_high_ns))
        return replace(self, ci_low_ns=max(floor(self.median_ns - low), 0), ci_high_ns=ceil(self.median_ns + high))


def pooled_spread(timings: Sequence[Timing]) -> float | None:
    """What builds differ by, of all that were built several times together; ``None`` where none was."""
    known = [(one.build_spread, one.builds - 1) for one in timings if one.build_spread is not None and one.builds > 1]
    if not known:
        return None
    return sqrt(sum(spread**2 * degrees for spread, degrees in known) / sum(degrees for _, degrees in known))


def _spread(parts: Sequence[NDArray[np.float64]]) -> float:
    """Standard deviation between the medians of builds, in ns, less what each median is unsure by."""
    medians = [float(np.median(part)) for part in parts]
    unsure = [(high - low) / 2 / HALF_WIDTH for low, high in map(median_interval, parts)]
    return sqrt(max(float(np.var(medians, ddof=1)) - float(np.mean(np.square(unsure))), 0.0))


def median_interval(samples: ArrayLike) -> tuple[float, float]:
    """A distribution-free 95 % confidence interval of the median.

    The number of samples below the median is binomial(n, 1/2), so the k-th smallest and the k-th largest sample enclose
    the median with probability 1 - 2 P(B < k); k is the largest for which that is at least 95 %. Fewer than six samples
    reach no such probability; their interval is their range.

    Raises:
        ValueError: There is no sample.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    if not len(ordered):
        raise ValueError("no samples, no interval")
    rank = _rank(len(ordered))
    return float(ordered[rank - 1]), float(ordered[-rank])


@cache
def _rank(size: int) -> int:
    """The largest k >= 1 with 2 P(binomial(size, 1/2) < k) <= 1/20, or 1 if there is none; in exact integers."""
    below, term, rank = 0, 1, 0  # below = sum of binomials (size over i), i < rank
    while 40 * (below + term) <= 2**size:
        below += term
        term = term * (size - rank) // (rank + 1)
        rank += 1
    return max(rank, 1)
