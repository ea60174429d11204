"""From samples of a latency to what is known about it: the median, how sure it is, how far samples stray.

Order statistics only: no distribution is assumed, for the latencies of a machine that does other things too follow
none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike

SMALLEST_SAMPLE = 6
"""Fewer samples than this have no 95 % interval: all of them lie on one side of the median with probability 2^(1-n)."""


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
    """

    median_ns: int
    ci_low_ns: int
    ci_high_ns: int
    p5_ns: int
    p95_ns: int
    cv: float
    samples: int
    builds: int = 1

    @classmethod
    def of(cls, samples: ArrayLike, builds: int = 1) -> Timing:
        """Summarise independent samples, in ns.

        Raises:
            ValueError: There is no sample.
        """
        ordered = np.sort(np.asarray(samples, np.float64))
        low, high = median_interval(ordered)
        p5, median, p95 = np.percentile(ordered, (5, 50, 95))
        return cls(
            median_ns=ceil(median),
            ci_low_ns=floor(low),
            ci_high_ns=ceil(high),
            p5_ns=floor(p5),
            p95_ns=ceil(p95),
            cv=round(float(ordered.std() / ordered.mean()), 6) if ordered.any() else 0.0,
            samples=len(ordered),
            builds=builds,
        )

    @property
    def relative_ci(self) -> float:
        """Half the width of the confidence interval over the median."""
        return (self.ci_high_ns - self.ci_low_ns) / 2 / max(self.median_ns, 1)


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
