"""Two profiles of one device: which operations became slower, and which only seem to have.

Every operation that both hold gets a ratio of its medians, new over baseline, with an interval. A machine that is
slower today is slower for all of them: that common factor, the median of the ratios, is taken out of every row and told
apart, for it is another clock rate or another job beside and says nothing of any one kernel. Of thousands of rows some
would seem to regress by chance, so a row is called slower or faster by an interval that holds for all rows at once.
Nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite, log, log1p

import numpy as np

from trt_layermerge.errors import IncompatibleError, InconclusiveError, LayerMergeError, RegressionError
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.statistics import SMALLEST_SAMPLE, Timing, median_interval
from trt_layermerge.regression.ratio import Ratio, Verdict, scatter, simultaneous, verdict
from trt_layermerge.runtimes.base import Device

ACROSS = ("driver", "runtime_version")
"""Fields of a key that one may want to compare across."""

_ORDER: dict[Verdict, int] = {"slower": 0, "unclear": 1, "same": 2, "faster": 2}
_CERTAIN = Ratio(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class RowPair:
    """One operation in both profiles.

    Attributes:
        key: Its signature, as text.
        baseline: Its latency then.
        new: Its latency now.
        ratio: New over baseline, less the common factor, with its 95 % interval.
        sure: The same with an interval that holds for all rows at once.
        verdict: What that says.
        reason: Why it is ``unclear``, in words; ``None`` where it is not.
    """

    key: str
    baseline: Timing
    new: Timing
    ratio: Ratio
    sure: Ratio
    verdict: Verdict
    reason: str | None


@dataclass(frozen=True)
class LoneRow:
    """An operation that cannot be compared.

    Attributes:
        key: Its signature, as text.
        reason: Why, in words.
    """

    key: str
    reason: str


@dataclass(frozen=True)
class ProfileComparison:
    """What two profiles say of each other.

    Attributes:
        tolerance: Largest change of a row that does not matter, such as 0.05.
        across: What the keys differ in and was to be compared across, in words.
        device: Of the new profile.
        factor: The common factor of all rows, new over baseline, with its 95 % interval.
        scatter: By how much rows stray besides what their intervals know, in logarithms; it is part of every interval.
        clocks_mhz: Median clock rates, baseline and new; ``None`` where one of them does not tell.
        pairs: What both hold, the worst first.
        repeated: How many of them are one measurement that lies in both files.
        degraded: Keys of pairs that are ``degraded`` in either.
        broken: Measured in the baseline, failed in the new profile.
        incomparable: Other rows of both that cannot be compared.
        missing: Rows of the baseline that the new profile has not.
        added: Rows of the new profile that the baseline has not.
    """

    tolerance: float
    across: tuple[str, ...]
    device: Device
    factor: Ratio
    scatter: float
    clocks_mhz: tuple[float, float] | None
    pairs: tuple[RowPair, ...]
    repeated: int
    degraded: tuple[str, ...]
    broken: tuple[LoneRow, ...]
    incomparable: tuple[LoneRow, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]

    @cached_property
    def counts(self) -> dict[Verdict, int]:
        """Number of pairs by verdict."""
        found = [pair.verdict for pair in self.pairs]
        return {name: found.count(name) for name in ("slower", "unclear", "same", "faster")}

    @property
    def doubtful(self) -> list[RowPair]:
        """Pairs that may be slower by more than the tolerance, and may not be."""
        return [pair for pair in self.pairs if pair.verdict == "unclear" and pair.ratio.may_exceed(self.tolerance)]

    @property
    def slowed(self) -> bool:
        """Whether the machine as a whole is slower by more than the tolerance."""
        return self.factor.value > 1 + self.tolerance

    @property
    def objection(self) -> LayerMergeError | None:
        """The error that CI should end with, if any.

        A row that is slower than the others is a regression, whatever the machine as a whole did. A common factor above
        the tolerance is none, for a busy machine has one too; but it could also hide one of all kernels, so that
        nothing can be said: inconclusive. A machine that is faster as a whole is no reason to stop.
        """
        slower = [pair for pair in self.pairs if pair.verdict == "slower"]
        if slower or self.broken:
            worst = [f"{pair.key} takes {pair.ratio.value:.2f} times as long" for pair in slower]
            worst += [f"{row.key} failed: {row.reason}" for row in self.broken]
            paced = abs(self.factor.log) > log1p(self.tolerance)
            beside = f", beside a machine that takes {self.factor.value:.2f} times as long as a whole" if paced else ""
            return RegressionError(
                f"{len(worst)} of {len(self.pairs) + len(self.broken)} operations are slower by more than "
                f"{100 * self.tolerance:.3g} %, or fail{beside}: {_first(worst, 3)}",
                hint="measure once more into a fresh folder (--profiles) to be sure; to accept it, let the new profile "
                "be the baseline",
            )
        if self.slowed:
            return InconclusiveError(
                f"the machine as a whole takes {self.factor.value:.2f} times as long as it did for the baseline",
                hint="see that nothing else runs and that the clock rate is the same (--lock-clocks), and measure once "
                "more into a fresh folder (--profiles); if it is there to stay, let the new profile be the baseline",
            )
        if self.doubtful:
            return InconclusiveError(
                f"{len(self.doubtful)} of {len(self.pairs)} operations may be slower by more than "
                f"{100 * self.tolerance:.3g} %, and may not be: {_first([pair.key for pair in self.doubtful], 3)}",
                hint="profile --again measures what is degraded once more; the others take a fresh folder "
                "(--profiles) while nothing else runs, or a larger --tolerance",
            )
        return None


def compare_profiles(
    baseline: Profile, new: Profile, tolerance: float, across: Collection[str] = ()
) -> ProfileComparison:
    """Compare two profiles, row by row.

    Args:
        baseline: What it was.
        new: What it is.
        tolerance: Largest change of a row that does not matter, above 0.
        across: Fields of ``ACROSS`` in which their keys may differ.

    Raises:
        IncompatibleError: Their latencies are of different things, or they have no row in common.
    """
    differing = baseline.key.differences(new.key)
    allowed = tuple(one for one in differing if one.partition(":")[0] in across)
    if refused := [one for one in differing if one not in allowed]:
        raise IncompatibleError(
            f"{baseline.path} and {new.path} cannot be compared: {'; '.join(refused)}", hint=remedy(refused)
        )
    olds, news = ({row.signature.key: row for row in profile} for profile in (baseline, new))
    common = {key: (olds[key], news[key]) for key in olds if key in news}
    others = {key: reason for key, rows in common.items() if (reason := _incomparable(*rows))}
    broken = {key: str(now.reason) for key, (_, now) in common.items() if now.timing is None and key not in others}
    both = [_Both(key, *rows) for key, rows in common.items() if key not in others and key not in broken]
    if not both and not broken:
        raise IncompatibleError(
            f"{baseline.path} and {new.path} have no operation in common that both have measured",
            hint="profile the same network with the same options",
        )
    ratios = [one.ratio for one in both if not one.repeated]
    factor = _common_factor(ratios)
    deviation = scatter([one / factor for one in ratios])
    return ProfileComparison(
        tolerance=tolerance,
        across=allowed,
        device=new.key.device,
        factor=factor,
        scatter=deviation,
        clocks_mhz=_clocks(both),
        pairs=_pairs(both, factor, deviation, tolerance),
        repeated=sum(one.repeated for one in both),
        degraded=tuple(one.key for one in both if one.degraded),
        broken=tuple(LoneRow(*row) for row in broken.items()),
        incomparable=tuple(LoneRow(*row) for row in others.items()),
        missing=tuple(key for key in olds if key not in news),
        added=tuple(key for key in news if key not in olds),
    )


def remedy(differing: Sequence[str]) -> str:
    """What to do about keys that differ, in words, given what they differ in."""
    fields = [one.partition(":")[0] for one in differing]
    if set(fields) <= set(ACROSS):
        return f"pass {' '.join(f'--across {field}' for field in fields)} to compare nevertheless"
    return "let both be measured in the same way on the same kind of device"


@dataclass(frozen=True)
class _Both:
    """One operation that both profiles have measured."""

    key: str
    then: ProfileRow
    now: ProfileRow

    @property
    def timings(self) -> tuple[Timing, Timing]:
        """Of the baseline and of the new profile."""
        assert self.then.timing is not None and self.now.timing is not None
        return self.then.timing, self.now.timing

    @property
    def repeated(self) -> bool:
        """Whether one measurement lies in both files: it is equal to the ns in every figure."""
        return self.timings[0] == self.timings[1]

    @property
    def degraded(self) -> str | None:
        """Why one of them is less sure than it says, in words."""
        return self.now.reason or self.then.reason

    @property
    def ratio(self) -> Ratio:
        """New over baseline."""
        then, now = (
            Ratio.of(*(max(ns, 1) for ns in (timing.median_ns, timing.ci_low_ns, timing.ci_high_ns)))
            for timing in self.timings
        )
        return now / then

    @property
    def fastest(self) -> float:
        """Logarithm of the ratio of the 5th percentiles."""
        then, now = (log(max(timing.p5_ns, 1)) for timing in self.timings)
        return now - then


def _incomparable(then: ProfileRow, now: ProfileRow) -> str | None:
    """Why two rows cannot be compared, in words."""
    if then.timing is None:
        return f"failed in the baseline: {then.reason}"
    return "simulated in one of them" if then.simulated != now.simulated else None


def _common_factor(ratios: Sequence[Ratio]) -> Ratio:
    """The median of the ratios; rows that really changed are outliers that it does not follow, while they are few."""
    if not ratios:
        return _CERTAIN
    logs = [ratio.log for ratio in ratios]
    centre, (low, high) = float(np.median(logs)), median_interval(logs)
    return Ratio(centre, centre - low, high - centre)


def _pairs(both: Sequence[_Both], factor: Ratio, deviation: float, tolerance: float) -> tuple[RowPair, ...]:
    """The rows with their verdicts, the worst first."""
    pairs = [_pair(one, factor, deviation, sum(not other.repeated for other in both), tolerance) for one in both]
    return tuple(sorted(pairs, key=lambda pair: (_ORDER[pair.verdict], -pair.ratio.log, pair.key)))


def _pair(one: _Both, factor: Ratio, deviation: float, comparisons: int, tolerance: float) -> RowPair:
    if one.repeated:
        return RowPair(one.key, *one.timings, _CERTAIN, _CERTAIN, "same", None)
    ratio = (one.ratio / factor).scattered(deviation)
    samples = min(timing.samples for timing in one.timings)
    sure = ratio.widened(simultaneous(comparisons, max(samples, SMALLEST_SAMPLE)))
    found = verdict(ratio, sure, tolerance)
    doubt = _doubt(one, found, factor, samples, tolerance)
    if found == "unclear" and doubt is None:
        wide = max(ratio.below, ratio.above) > log1p(tolerance)
        doubt = f"its interval is {'wider than the tolerance' if wide else 'too wide to be sure of its change'}"
    return RowPair(one.key, *one.timings, ratio, sure, "unclear" if doubt else found, doubt)


def _doubt(one: _Both, found: Verdict, factor: Ratio, samples: int, tolerance: float) -> str | None:
    """Why a row is not what its interval says, in words.

    What an interval does not know: that a job beside stretched most of the runs, for seconds, and evenly. A kernel that
    is slower is slower in its fastest runs as well.
    """
    if found == "same":
        return None
    if one.degraded:
        return one.degraded
    if samples < SMALLEST_SAMPLE:
        return f"{samples} samples have no 95 % interval"
    moved = one.fastest - factor.log
    if (found == "slower" and moved <= log1p(tolerance)) or (found == "faster" and moved >= -log1p(tolerance)):
        return "its fastest runs did not change as its median did, so something ran beside"
    return None


def _clocks(both: Sequence[_Both]) -> tuple[float, float] | None:
    """Median clock rates of the rows, in MHz."""
    thens, nows = (
        [clock for clock in clocks if clock is not None and isfinite(clock)]
        for clocks in ([one.then.clock_mhz for one in both], [one.now.clock_mhz for one in both])
    )
    return (float(np.median(thens)), float(np.median(nows))) if thens and nows else None


def _first(texts: Sequence[str], count: int) -> str:
    """The first of several, and how many more there are."""
    more = f"; and {len(texts) - count} more" if len(texts) > count else ""
    return "; ".join(texts[:count]) + more
