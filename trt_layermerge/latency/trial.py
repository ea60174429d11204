"""A candidate under measurement, and the sentinel beside it: bursts, rounds, and what they say so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.statistics import SMALLEST_SAMPLE, Timing
from trt_layermerge.runtimes.base import Condition, Engine, Nanoseconds, Timed

TimedT = TypeVar("TimedT", bound=Timed)

WINDOW = 5
"""Readings in a row whose median is a standard; one lucky reading is none."""


@dataclass(frozen=True)
class Burst:
    """A few runs in a row.

    Attributes:
        runs: Each in ns.
        build: Which of a candidate's engines ran.
    """

    runs: Nanoseconds
    build: int = 0

    @property
    def sample(self) -> float:
        """The median of its runs, in ns."""
        return float(np.median(self.runs))


def timing_of(bursts: Iterable[Burst]) -> Timing:
    """What bursts say of a latency."""
    held = list(bursts)
    return Timing.of([one.sample for one in held], [one.build for one in held], np.concatenate([b.runs for b in held]))


@dataclass(frozen=True)
class Round:
    """What one round says of a candidate: its burst, the sentinel's reading in ns, and how the device was."""

    burst: Burst
    reading: float
    condition: Condition
    disturbed: bool


class Trial(Generic[TimedT]):
    """A candidate under measurement.

    Attributes:
        spent_ns: What its bursts have taken.
    """

    def __init__(self, engines: Sequence[TimedT], policy: MeasurementPolicy, doubt: str | None = None) -> None:
        """Warm the engines up, which also tells how many runs make a burst.

        Args:
            engines: What is timed: independent builds of one model, which take turns.
            policy: How sure the latency has to be.
            doubt: Why it cannot be, whatever the samples say.
        """
        self.engines, self._policy, self._doubt = engines, policy, doubt
        self.spent_ns = self._bursts = 0
        self.rounds: list[Round] = []
        self._runs = policy.burst(min(float(np.min(engine.time(policy.min_burst))) for engine in engines))

    def burst(self) -> Burst:
        """Time one burst."""
        build = self._bursts % len(self.engines)
        times = self.engines[build].time(self._runs)
        self._bursts += 1
        self.spent_ns += int(times.sum())
        return Burst(times, build)

    def accept(self, one: Round) -> None:
        """Count a round."""
        self.rounds.append(one)

    @property
    def late(self) -> bool:
        """The time is up."""
        return self.spent_ns >= 1e9 * self._policy.max_seconds

    @property
    def timing(self) -> Timing:
        """What is known so far."""
        return timing_of(one.burst for one in self.rounds)

    @property
    def finished(self) -> bool:
        """Known well enough, or the time is up."""
        count = len(self.rounds)
        if count < (SMALLEST_SAMPLE if self.late else max(self._policy.min_samples, SMALLEST_SAMPLE)):
            return False
        bursts = [one.burst for one in self.rounds]  # of their runs too, it would take too long to be asked every round
        sampled = Timing.of([one.sample for one in bursts])
        return self.late or sampled.relative_ci <= self._policy.relative_ci

    @property
    def doubt(self) -> str | None:
        """Why the timing is less sure than asked for, in words."""
        if self._doubt is not None:
            return self._doubt
        policy, reached = self._policy, self.timing.relative_ci
        disturbed = [one for one in self.rounds if one.disturbed]
        if len(disturbed) > policy.tolerated * len(self.rounds):
            share = f"{len(disturbed)} of {len(self.rounds)} samples"
            if held_back := sorted({reason for one in disturbed for reason in one.condition.held_back}):
                return f"{share} were taken while the device held itself back: {', '.join(held_back)}"
            return f"{share} were taken while the sentinel was more than {policy.disturbance:.0%} slow"
        if reached > policy.relative_ci:
            return f"the interval is within {reached:.1%} of the median, not {policy.relative_ci:.1%}, when time is up"
        if policy.stretched(self.timing):
            times = self.timing.median_ns / max(self.timing.p5_ns, 1)
            return f"the median is {times:.1f} times the 5th percentile: something ran beside most of the runs"
        return None


class Sentinel:
    """The block that is always the same, and how fast it was at its best.

    At its best: the lowest median of five readings in a row.
    """

    def __init__(self, engine: Engine, policy: MeasurementPolicy) -> None:
        """Warm the engine up and take the first readings."""
        self._engine, self._policy = engine, policy
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._best = float("inf")
        engine.time(policy.min_burst)
        for _ in range(WINDOW):
            self.read()
        self.first = self._best

    def read(self) -> float:
        """Time the sentinel, in ns."""
        reading = float(np.median(self._engine.time(self._policy.min_burst)))
        self._recent.append(reading)
        if len(self._recent) == WINDOW:
            self._best = min(self._best, float(np.median(self._recent)))
        return reading

    def disturbed(self, reading: float) -> bool:
        """Whether so slow a sentinel means that something else was going on."""
        return reading > (1 + self._policy.disturbance) * self._best
