"""Filling a profile: what to time, in which order, until when, and what to make of a machine that is disturbed.

One *sample* is the median of one burst, a few runs in a row that take about 5 ms; runs of one burst are not
independent, bursts are nearly so. Candidates are timed in groups, round after round, one burst each, so that whatever
changes on the machine changes for all of them. Each round also times a *sentinel*, a block that is always the same: a
round in which it is slow was disturbed, and is thrown away.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from trt_layermerge.blocks.gap_signature import AnySignature, GapSignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import IncompatibleError, InputError
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.statistics import SMALLEST_SAMPLE, Timing
from trt_layermerge.log import record
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.progress import Progress
from trt_layermerge.runtimes.base import BuildOptions, Condition, Engine, Runtime

_LOG = logging.getLogger(__name__)

SENTINEL = Signature(8, (64, 14, 14), Geometry(64, 64, (3, 3), padding=(1, 1, 1, 1)), activation="relu")
"""What is re-timed in every round to see the machine drift."""


GapModel = Callable[[GapSignature], onnx.ModelProto]
"""Writes a gap as ONNX: unlike a convolution's, its signature does not say enough to."""


def _no_model(signature: GapSignature) -> onnx.ModelProto:
    raise InputError(f"a gap is timed with its network at hand: {signature.key}")


_SENTINEL_WINDOW = 5
_BUILD_SECONDS = 0.03
_SECONDS_PER_MAC = 1e-10


def fill(
    profile: Profile,
    signatures: Iterable[AnySignature],
    runtime: Runtime,
    options: BuildOptions,
    policy: MeasurementPolicy,
    progress: Progress | None = None,
    gap_model: GapModel | None = None,
    max_seconds: float | None = None,
) -> int:
    """Measure the signatures that a profile does not hold yet; each row is on disk as soon as it is known.

    A candidate that cannot be built gets a row that says so, and another try the next time; one that stayed less sure
    than the policy asks is ``degraded``, and gets one where the policy says so.

    After ``max_seconds`` no group of candidates is begun any more. ``gap_model`` is asked for gaps alone.

    Returns:
        How many rows were measured.

    Raises:
        IncompatibleError: The profile is not of this runtime and these options.
        RuntimeNotAvailableError: The device is not here.
    """
    if differences := profile.key.differences(ProfileKey.of(runtime.describe(options))):
        raise IncompatibleError(
            f"profile {profile.path} cannot take latencies of this runtime: {'; '.join(differences)}",
            hint="open the profile of this device, runtime and precision",
        )
    pending = missing(signatures, profile, policy)
    sentinel: _Sentinel | None = None
    measured, began, work = 0, time.monotonic(), _work(pending, profile, policy)
    finished, all_work = 0.0, sum(work.values())
    for begin in range(0, len(pending), policy.group):
        if max_seconds is not None and time.monotonic() - began >= max_seconds:
            break
        sentinel = sentinel or _Sentinel(
            _built(replace(SENTINEL, precision=options.precision), runtime, options), policy
        )
        group = pending[begin : begin + policy.group]
        for row in _measured(group, runtime, options, sentinel, policy, gap_model or _no_model):
            profile.add(replace(row, simulated=profile.key.device.simulated))
            if row.status != "ok":
                about = {"signature": row.signature.key, "status": row.status, "reason": row.reason}
                record(_LOG.info, "row", "%s is %s: %s", *about.values(), **about)
            measured, finished = measured + 1, finished + work[row.signature.key]
            if progress is not None:
                progress(measured, len(pending), row.signature.key, share=finished / all_work)
    return measured


def missing(signatures: Iterable[AnySignature], profile: Profile, policy: MeasurementPolicy) -> list[AnySignature]:
    """The signatures that ``fill`` would measure, each once; empty ones need no latency.

    Raises:
        IncompatibleError: A signature is of another precision than the profile.
    """
    enough = {"ok"} if policy.again else {"ok", "degraded"}
    wanted = (signature for signature in signatures if not signature.empty)
    pending = {s.key: s for s in wanted if (row := profile.get(s)) is None or row.status not in enough}
    for key, signature in pending.items():
        if signature.precision != (precision := profile.key.device.precision):
            raise IncompatibleError(f"profile {profile.path} is of {precision}, it cannot hold: {key}")
    return list(pending.values())


def compare(engines: Mapping[str, Engine], policy: MeasurementPolicy) -> dict[str, Timing]:
    """Time engines end to end, interleaved, until all latencies are sure enough or the time is up.

    The engines are each other's sentinels: a round in which one of them was slower than at its best by more than
    ``policy.disturbance`` was disturbed, and counts for none of them. Which rounds those were is decided again when the
    machine turns out to have been slow from the start.
    """
    if not engines:
        return {}
    trials = [_Trial([engine], policy) for engine in engines.values()]
    rounds: list[list[float]] = []
    while True:
        rounds.extend([trial.burst() for trial in trials] for _ in range(SMALLEST_SAMPLE))
        timings = [Timing.of(samples) for samples in _undisturbed(np.array(rounds), policy).T]
        enough = timings[0].samples >= max(policy.min_samples, SMALLEST_SAMPLE)
        sure = enough and all(timing.relative_ci <= policy.relative_ci for timing in timings)
        if sure or any(trial.late for trial in trials):
            return dict(zip(engines, timings, strict=True))


def _undisturbed(rounds: NDArray[np.float64], policy: MeasurementPolicy) -> NDArray[np.float64]:
    """The rounds (rows) in which no engine (column) was slow; all of them, where those are too few to go by."""
    if len(rounds) < _SENTINEL_WINDOW:
        return rounds
    best = np.median(np.lib.stride_tricks.sliding_window_view(rounds, _SENTINEL_WINDOW, axis=0), axis=-1).min(axis=0)
    quiet = rounds[(rounds <= (1 + policy.disturbance) * best).all(axis=1)]
    return quiet if len(quiet) >= SMALLEST_SAMPLE else rounds


def estimate_seconds(signatures: Iterable[AnySignature], profile: Profile, policy: MeasurementPolicy) -> float:
    """How long ``fill`` will take, in seconds, on a machine that is not disturbed; from multiply-accumulates.

    The rows that the profile has tell how long one of those takes; without rows, 0.1 ns.
    """
    return sum(_work(missing(signatures, profile, policy), profile, policy).values())


def _work(signatures: Iterable[AnySignature], profile: Profile, policy: MeasurementPolicy) -> dict[str, float]:
    """How long each signature should take, in seconds."""
    pace = _seconds_per_mac(profile)
    return {one.key: _estimate(one.batch * one.macs * pace, policy) for one in signatures}


def _estimate(run_seconds: float, policy: MeasurementPolicy) -> float:
    # At least a microsecond a run: what calling a runtime costs.
    run = max(run_seconds, 1e-6)
    sentinel = policy.min_burst * SENTINEL.batch * SENTINEL.macs * _SECONDS_PER_MAC / policy.group
    sampling = policy.min_samples * (run * policy.burst(1e9 * run) + sentinel)
    return policy.builds * _BUILD_SECONDS + min(sampling, max(policy.max_seconds, SMALLEST_SAMPLE * run))


def _seconds_per_mac(profile: Profile) -> float:
    paces = [
        1e-9 * row.timing.median_ns / (row.signature.batch * row.signature.macs)
        for row in profile
        if row.timing is not None and row.signature.macs
    ]
    return float(np.median(paces)) if paces else _SECONDS_PER_MAC


def _measured(
    group: Sequence[AnySignature],
    runtime: Runtime,
    options: BuildOptions,
    sentinel: _Sentinel,
    policy: MeasurementPolicy,
    gap_model: GapModel,
) -> Iterator[ProfileRow]:
    """The rows of a group, each as soon as it is known."""
    trials: dict[AnySignature, _Trial] = {}
    for signature in group:
        try:
            engines = [_built(signature, runtime, options, gap_model) for _ in range(policy.builds)]
            trials[signature] = _Trial(engines, policy, runtime.doubt(engines[0]))
        except InputError as error:
            yield ProfileRow(signature, None, "failed", error.message)
    accepted = discarded = 0
    while trials:
        bursts = {signature: trial.burst() for signature, trial in trials.items()}
        reading, condition = sentinel.read(), runtime.condition() or Condition()
        if condition.held_back:
            time.sleep(policy.cooling_seconds)
        disturbed = sentinel.disturbed(reading) or bool(condition.held_back)
        if disturbed and discarded < accepted + policy.patience:
            discarded += 1
            continue
        accepted += 1
        for signature, sample in bursts.items():
            trials[signature].accept(_Round(sample, reading, condition, disturbed))
            if trials[signature].finished:
                yield _row(signature, trials.pop(signature), sentinel)


def _built(signature: AnySignature, runtime: Runtime, options: BuildOptions, gap_model: GapModel = _no_model) -> Engine:
    model = gap_model(signature) if isinstance(signature, GapSignature) else candidate_model(signature)
    return runtime.build(model, options)


def _row(signature: AnySignature, trial: _Trial, sentinel: _Sentinel) -> ProfileRow:
    reason = trial.doubt
    clocks = [one.condition.clock_mhz for one in trial.rounds if one.condition.clock_mhz is not None]
    temperatures = [one.condition.temperature_c for one in trial.rounds if one.condition.temperature_c is not None]
    return ProfileRow(
        signature,
        trial.timing,
        "ok" if reason is None else "degraded",
        reason,
        drift=round(float(np.median([one.reading for one in trial.rounds])) / sentinel.first, 4),
        clock_mhz=float(np.median(clocks)) if clocks else None,
        temperature_c=float(max(temperatures)) if temperatures else None,
    )


@dataclass(frozen=True)
class _Round:
    """What one round says of a candidate: its burst in ns, the sentinel's in ns, and how the device was."""

    sample: float
    reading: float
    condition: Condition
    disturbed: bool


class _Trial:
    """A candidate under measurement."""

    def __init__(self, engines: Sequence[Engine], policy: MeasurementPolicy, doubt: str | None = None) -> None:
        """Warm the engines up, which also tells how many runs make a burst.

        Args:
            engines: What is timed: independent builds of one model, which take turns.
            policy: How sure the latency has to be.
            doubt: Why it cannot be, whatever the samples say.
        """
        self._engines, self._policy, self._doubt = engines, policy, doubt
        self._spent_ns = self._bursts = 0
        self.rounds: list[_Round] = []
        self._runs = policy.burst(min(float(np.min(engine.time(policy.min_burst))) for engine in engines))

    def burst(self) -> float:
        """Time one burst; the median of its runs, in ns."""
        times = self._engines[self._bursts % len(self._engines)].time(self._runs)
        self._bursts += 1
        self._spent_ns += int(times.sum())
        return float(np.median(times))

    def accept(self, one: _Round) -> None:
        """Count a round."""
        self.rounds.append(one)

    @property
    def late(self) -> bool:
        """The time is up."""
        return self._spent_ns >= 1e9 * self._policy.max_seconds

    @property
    def timing(self) -> Timing:
        """What is known so far."""
        return Timing.of([one.sample for one in self.rounds], len(self._engines))

    @property
    def finished(self) -> bool:
        """Known well enough, or the time is up."""
        count = len(self.rounds)
        if count < (SMALLEST_SAMPLE if self.late else max(self._policy.min_samples, SMALLEST_SAMPLE)):
            return False
        return self.late or self.timing.relative_ci <= self._policy.relative_ci

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


class _Sentinel:
    """The block that is always the same, and how fast it was at its best.

    At its best: the lowest median of five readings in a row; one lucky reading is no standard.
    """

    def __init__(self, engine: Engine, policy: MeasurementPolicy) -> None:
        """Warm the engine up and take the first readings."""
        self._engine, self._policy = engine, policy
        self._recent: deque[float] = deque(maxlen=_SENTINEL_WINDOW)
        self._best = float("inf")
        engine.time(policy.min_burst)
        for _ in range(_SENTINEL_WINDOW):
            self.read()
        self.first = self._best

    def read(self) -> float:
        """Time the sentinel, in ns."""
        reading = float(np.median(self._engine.time(self._policy.min_burst)))
        self._recent.append(reading)
        if len(self._recent) == _SENTINEL_WINDOW:
            self._best = min(self._best, float(np.median(self._recent)))
        return reading

    def disturbed(self, reading: float) -> bool:
        """Whether so slow a sentinel means that something else was going on."""
        return reading > (1 + self._policy.disturbance) * self._best
