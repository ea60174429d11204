"""How often ``compare`` would claim a change where nothing changed, by the kind of noise; nothing is timed.

Pairs of equal medians are drawn, 30 samples each, and their ratio gets its interval as ``regression.ratio`` makes it.
At a level of 1 in 20,000, that of each side of one row among 500, ``normal`` is how many times as often as it should be
the ratio is beyond the interval if widened by normal quantiles, ``student`` if by Student's, and ``needed`` the
quantile that would be right.

    python benchmarks/comparing.py --pairs 2000000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.latency.statistics import median_interval
from trt_layermerge.regression.ratio import simultaneous

SAMPLES, LEVEL = 30, 5e-5
SHAPE = (2, 100_000, SAMPLES)

Random = np.random.Generator
Logs = NDArray[np.float64]


def two_speeds(random: Random, share: float, slower: float) -> Logs:
    return np.where(random.random(SHAPE) < share, np.log(slower), 0.0) + 0.01 * random.standard_normal(SHAPE)


NOISE: dict[str, Callable[[Random], Logs]] = {
    "normal": lambda random: 0.02 * random.standard_normal(SHAPE),
    "log-normal": lambda random: np.log1p(0.05 * np.exp(random.standard_normal(SHAPE))),
    "exponential": lambda random: np.log1p(0.05 * random.exponential(size=SHAPE)),
    "Student, 2": lambda random: 0.01 * random.standard_t(2, SHAPE),
    "20 % at 1.3x": lambda random: two_speeds(random, 0.2, 1.3),
    "40 % at 1.1x": lambda random: two_speeds(random, 0.4, 1.1),
}


def deviations(draw: Callable[[Random], Logs], pairs: int) -> NDArray[np.float64]:
    """How far equal medians seem to be apart, upwards, in standard deviations by their own intervals."""
    random, low = np.random.default_rng(0), int(median_interval(range(SAMPLES))[0])
    found = []
    for _ in range(-(-pairs // SHAPE[1])):
        samples = np.sort(draw(random), axis=-1)
        middle = np.median(samples, axis=-1)
        below, above = middle - samples[..., low], samples[..., -1 - low] - middle
        found.append((middle[0] - middle[1]) / np.hypot(below[0], above[1]) * NormalDist().inv_cdf(0.975))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of each kind of noise")
    pairs = parser.parse_args().pairs
    normal = NormalDist().inv_cdf(1 - LEVEL)
    student = simultaneous(round(0.025 / LEVEL), SAMPLES) * NormalDist().inv_cdf(0.975)
    print(f"{'noise':<14} {'normal':>8} {'student':>8} {'needed':>8}   of {normal:.2f} and {student:.2f}")
    for name, draw in NOISE.items():
        apart = deviations(draw, pairs)
        shares = (np.mean(apart > quantile) / LEVEL for quantile in (normal, student))
        print(f"{name:<14}", *(f"{share:>8.2f}" for share in shares), f"{np.quantile(apart, 1 - LEVEL):>8.2f}")


if __name__ == "__main__":
    main()
