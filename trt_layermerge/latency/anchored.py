"""Latencies of whole networks at the speed that the machine had when its profile was filled.

A machine may be a fifth slower for minutes, or share its cores for an hour, and say nothing of it. Predictions subtract
a network's blocks, which the profile knows, from the network itself, which is timed later: both must be of the same
speed. So the network is timed in turns with blocks that the profile knows, its *anchors*, and their rows tell how fast
the machine is now. Where they do not tell it surely enough, nothing is planned on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, floor, hypot, log, sqrt
from statistics import median, stdev

import numpy as np

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InconclusiveError, say
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.measure import compare_builds
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.statistics import HALF_WIDTH, Timing
from trt_layermerge.runtimes.base import BuildOptions, Engine, Nanoseconds, Runtime, Timed

ATTEMPTS = 4
"""Times that a network is timed, at most, while something else computes beside it."""

ANCHORS = 4
"""Blocks of one kind that a network is timed with; the ones that take longest, for they are timed most surely."""

LONGEST_NS = 5e7
"""Of a stretch of one anchor: many slices of a core that is shared, whatever the network takes."""

UNSURE = 0.15
"""Half-width of the interval, as a share, that a latency may have for plans to rest on it, unless the policy allows
more: plans that are so far off count as not kept (decision 50)."""

_NETWORK, _ANCHORS = "network", "anchors"
_QUIET = "run it again with nothing else running"
_ANEW = "an empty folder for --profiles has all rows measured anew"


@dataclass(frozen=True)
class _Reading:
    """What one attempt found.

    Attributes:
        now: Latency of the network now.
        then: At the profile's speed, with an interval that holds what both are unsure by.
        pace: Profile's latencies over those of now.
        ratios: Of each anchor, what it takes now over what the profile says; by single runs.
    """

    now: Timing
    then: Timing
    pace: float
    ratios: tuple[float, ...]

    def quiet(self, policy: MeasurementPolicy) -> bool:
        """Whether waiting would find nothing better: as fast as it was, with nothing beside it, and sure."""
        as_fast = 1 / (1 + policy.spread) <= self.pace <= 1 + policy.spread
        return as_fast and self.sure(policy) and not policy.stretched(self.now)

    def sure(self, policy: MeasurementPolicy) -> bool:
        """Whether the latency at the profile's speed is known well enough to plan with."""
        return self.then.relative_ci <= max(UNSURE, policy.relative_ci)


def anchored(
    engine: Engine,
    profile: Profile,
    known: Mapping[Signature, int],
    runtime: Runtime,
    options: BuildOptions,
    policy: MeasurementPolicy,
) -> tuple[Timing, float]:
    """Time an engine in turns with blocks that a profile knows.

    It is timed again where something ran beside it, ``ATTEMPTS`` times at most. A machine that is slower now than it
    was, evenly, is reckoned with; far slower is said.

    Args:
        engine: Of a whole network.
        profile: Of this device.
        known: Its anchors; see ``anchors``.
        runtime: Builds them.
        options: As the profile's blocks were built.
        policy: How sure the latency has to be.

    Returns:
        The latency at the profile's speed, and what it was multiplied by for that: 0.8 where the machine now takes 1.25
        times as long; 1 where there are no anchors.

    Raises:
        InconclusiveError: The latency at the profile's speed is not to be known now, or the profile is of a machine
            that was far slower.
    """
    blocks = [(runtime.build(candidate_model(one), options), known_ns) for one, known_ns in known.items()]
    length_ns = min(float(np.min(engine.time(policy.min_burst))), LONGEST_NS)
    found: list[_Reading] = []
    while len(found) < ATTEMPTS and not (found and found[-1].quiet(policy)):
        stretches = [_Stretch(block, known_ns, length_ns) for block, known_ns in blocks]
        found.append(_reading(engine, stretches, policy))
    best = found[-1] if found[-1].quiet(policy) else _middle(found)
    _require_trustworthy(best, profile, policy)
    return best.then, best.pace


def _middle(found: Sequence[_Reading]) -> _Reading:
    """The middle one of attempts beside other work, as unsure as they disagree, too."""
    middle = sorted(found, key=lambda one: one.then.median_ns)[len(found) // 2]
    return replace(middle, then=middle.then.widened(_unsure([one.then.median_ns for one in found])))


def _unsure(readings: Sequence[float]) -> float:
    """Half the 95 % interval of the mean of readings, as a share of it; 0 for one, which tells nothing of it."""
    return HALF_WIDTH * stdev(map(log, readings)) / sqrt(len(readings)) if len(readings) > 1 else 0.0


def _reading(engine: Engine, stretches: Sequence[_Stretch], policy: MeasurementPolicy) -> _Reading:
    timed: dict[str, Sequence[Timed]] = {_NETWORK: [engine]} | ({_ANCHORS: stretches} if stretches else {})
    timings = compare_builds(timed, policy)
    now, beside, ratios = timings[_NETWORK], timings.get(_ANCHORS), tuple(one.ratio for one in stretches)
    if beside is None:
        return _Reading(now, now, 1.0, ratios)
    pace = stretches[0].length_ns / max(beside.median_ns, 1)
    # Rows of different days may disagree about the speed, by more than each of them is unsure.
    then = scaled(now, pace).widened(hypot(beside.relative_ci, _unsure(ratios)))
    return _Reading(now, then, pace, ratios)


def _require_trustworthy(found: _Reading, profile: Profile, policy: MeasurementPolicy) -> None:
    """See that plans can rest on a latency, and tell what was made of a machine that is far slower now.

    Raises:
        InconclusiveError: They cannot.
    """
    now_ms, then_ms = found.now.median_ns / 1e6, found.then.median_ns / 1e6
    if not found.ratios and policy.stretched(found.now):
        times = found.now.median_ns / max(found.now.p5_ns, 1)
        raise InconclusiveError(
            f"something else computes on this device: the original's median latency is {times:.1f} times its 5th "
            f"percentile, and profile {profile.path} has no row of its operations to tell how slow the machine is",
            hint=_QUIET,
        )
    if found.ratios and not found.sure(policy):
        low_ms, high_ms = found.then.ci_low_ns / 1e6, found.then.ci_high_ns / 1e6
        raise InconclusiveError(
            f"the original takes {now_ms:.4g} ms now, which may be anything from {low_ms:.3g} to {high_ms:.3g} ms at "
            f"the speed of profile {profile.path}: known to {found.then.relative_ci:.0%}, and plans rest on "
            f"{max(UNSURE, policy.relative_ci):.0%}. {len(found.ratios)} operations, timed again, take "
            f"{min(found.ratios):.2f} to {max(found.ratios):.2f} times as long as their rows",
            hint=f"{_QUIET}; if rows disagree even then, they were measured at different speeds: {_ANEW}",
        )
    if found.pace > 1 + policy.spread:
        raise InconclusiveError(
            f"profile {profile.path} was filled while the machine was slower: operations of the original take "
            f"{1 / found.pace:.2f} times as long now as their rows, so its milliseconds are not those of this machine",
            hint=f"{_ANEW}, best with nothing else running",
        )
    if found.pace < 1 / (1 + policy.spread):
        say(
            f"the machine takes {1 / found.pace:.1f} times as long now as when profile {profile.path} was filled: the "
            f"original, {now_ms:.4g} ms now, is counted as {then_ms:.4g} ms, to {found.then.relative_ci:.0%}"
        )


@dataclass(frozen=True)
class _Stretch:
    """An anchor over and over, for as long as one run of the network: what is timed beside it.

    Of a core that is shared a process gets slices of milliseconds. A short run lies within one, and knows nothing of
    the others; the median of such runs is that of a quiet machine, while the network takes several times as long. What
    takes as long as the network is stretched as it is.

    Attributes:
        engine: The anchor.
        known_ns: What the profile says that it takes.
        length_ns: What one run of the network takes, about.
        single: Medians of single runs over what the profile says, as they come.
    """

    engine: Engine
    known_ns: int
    length_ns: float
    single: list[float] = field(default_factory=list)

    def time(self, repeats: int) -> Nanoseconds:
        """Time stretches: how long they take for every ns that the profile says, times ``length_ns``."""
        runs = max(1, round(self.length_ns / self.known_ns))
        found = np.empty(repeats)
        for index in range(repeats):
            times = self.engine.time(1 + runs)[1:]  # the first one finds its weights out of the cache
            self.single.append(float(np.median(times)) / self.known_ns)
            found[index] = self.length_ns * times.mean() / self.known_ns
        return found.round().astype(np.int64)

    @property
    def ratio(self) -> float:
        """What a single run takes now over what the profile says; most of them meet no other process."""
        return median(self.single)


def anchors(profile: Profile, signatures: Iterable[Signature], most_ns: int | None = None) -> dict[Signature, int]:
    """The blocks that take longest of those that a profile knows, with their latencies in ns.

    Those that it is sure of; others only where it is sure of none.

    Args:
        profile: Of the device.
        signatures: The blocks.
        most_ns: Those that take longer are none; ``None`` for no limit.
    """
    rows = {one: profile.get(one) for one in dict.fromkeys(signatures) if not one.empty}
    timed = {one: row for one, row in rows.items() if row is not None and row.timing is not None}
    sure = {one: row for one, row in timed.items() if row.status == "ok"}
    found = {one: row.timing.median_ns for one, row in (sure or timed).items() if row.timing is not None}
    fit = [(one, ns) for one, ns in found.items() if ns > 0 and (most_ns is None or ns <= most_ns)]
    return dict(sorted(fit, key=lambda item: -item[1])[:ANCHORS])


def scaled(timing: Timing, factor: float) -> Timing:
    """A timing in other units, rounded away from optimism as the timing itself is."""
    return replace(
        timing,
        median_ns=ceil(timing.median_ns * factor),
        ci_low_ns=floor(timing.ci_low_ns * factor),
        ci_high_ns=ceil(timing.ci_high_ns * factor),
        p5_ns=floor(timing.p5_ns * factor),
        p95_ns=ceil(timing.p95_ns * factor),
        p90_ns=None if timing.p90_ns is None else ceil(timing.p90_ns * factor),
        p99_ns=None if timing.p99_ns is None else ceil(timing.p99_ns * factor),
    )
