"""Filling a profile: what to time, in which order, until when, and what to make of a machine that is disturbed.

One *sample* is the median of one burst, a few runs in a row that take about 5 ms; runs of one burst are not
independent, bursts are nearly so. Candidates are timed in groups, round after round, one burst each, so that whatever
changes on the machine changes for all of them. Each round also times a *sentinel*, a block that is always the same: a
round in which it is slow was disturbed, and is thrown away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from math import ceil

import numpy as np
import onnx

from trt_layermerge.blocks.gap_signature import AnySignature, GapSignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import IncompatibleError, InputError
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.runner import Runner
from trt_layermerge.latency.statistics import SMALLEST_SAMPLE, Timing
from trt_layermerge.latency.trial import WINDOW, Burst, Round, Sentinel, Trial, timing_of
from trt_layermerge.log import record
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.progress import Progress
from trt_layermerge.runtimes.base import BuildOptions, Condition, Engine, Runtime, Timed

_LOG = logging.getLogger(__name__)

SENTINEL = Signature(8, (64, 14, 14), Geometry(64, 64, (3, 3), padding=(1, 1, 1, 1)), activation="relu")
"""What is re-timed in every round to see the machine drift."""


GapModel = Callable[[GapSignature], onnx.ModelProto]
"""Writes a gap as ONNX: unlike a convolution's, its signature does not say enough to."""


def _no_model(signature: GapSignature) -> onnx.ModelProto:
    raise InputError(f"a gap is timed with its network at hand: {signature.key}")


_BUILD_SECONDS = 0.03
_ONE_OF = 8
_SECONDS_PER_MAC = 1e-10


@dataclass(frozen=True)
class DeviceRunner:
    """Measures on the device that is here; see ``Runner``.

    Attributes:
        runtime: Builds the engines.
        options: How.
        policy: How sure the latencies have to be.
        gap_model: Asked for gaps alone.
        rebuilt: Keys of those that are built ``policy.rebuilds`` times; see ``rebuilt``.
    """

    runtime: Runtime
    options: BuildOptions
    policy: MeasurementPolicy
    gap_model: GapModel = _no_model
    rebuilt: frozenset[str] = frozenset()

    @property
    def key(self) -> ProfileKey:
        """What its rows are of."""
        return ProfileKey.of(self.runtime.describe(self.options))

    def rows(self, signatures: Sequence[AnySignature], max_seconds: float | None = None) -> Iterator[ProfileRow]:
        """Measure group by group, beside one sentinel."""
        began = time.monotonic()
        for group in _groups(signatures, self.policy):
            if max_seconds is not None and time.monotonic() - began >= max_seconds:
                return
            yield from _measured(group, self, self._sentinel)

    @cached_property
    def _sentinel(self) -> Sentinel:
        signature = replace(SENTINEL, precision=self.options.precision)
        return Sentinel(_built(signature, self.runtime, self.options), self.policy)


def fill(
    profile: Profile,
    signatures: Iterable[AnySignature],
    runner: Runner,
    progress: Progress | None = None,
    max_seconds: float | None = None,
) -> int:
    """Measure the signatures that a profile does not hold yet; each row is on disk as soon as it is known.

    A candidate that cannot be built gets a row that says so, and another try the next time; one that stayed less sure
    than the policy asks is ``degraded``, and gets one where the policy says so. In the end, however it comes, the file
    is in order: the same whoever measured, and in whatever turn.

    After ``max_seconds`` no group of candidates is begun any more.

    Returns:
        How many rows were measured.

    Raises:
        IncompatibleError: The profile is not of what the runner measures.
        RuntimeNotAvailableError: The device is not here.
    """
    if differences := profile.key.differences(runner.key):
        raise IncompatibleError(
            f"profile {profile.path} cannot take latencies of this runtime: {'; '.join(differences)}",
            hint="open the profile of this device, runtime and precision",
        )
    pending, measured, finished = missing(signatures, profile, runner.policy), 0, 0.0
    work = _work(pending, profile, runner.policy)
    all_work = sum(work.values())
    try:
        for row in runner.rows(pending, max_seconds) if pending else ():
            profile.add(replace(row, simulated=profile.key.device.simulated))
            if row.status != "ok":
                about = {"signature": row.signature.key, "status": row.status, "reason": row.reason}
                record(_LOG.info, "row", "%s is %s: %s", *about.values(), **about)
            measured, finished = measured + 1, finished + work[row.signature.key]
            if progress is not None:
                progress(measured, len(pending), row.signature.key, share=finished / all_work)
    finally:
        profile.put_in_order()
    return measured


def _groups(pending: Sequence[AnySignature], policy: MeasurementPolicy) -> Iterator[list[AnySignature]]:
    """Candidates in order, so many at a time as are timed interleaved."""
    group: list[AnySignature] = []
    values, builds = 0, max(policy.builds, policy.rebuilds)
    for signature in pending:
        more = builds * signature.values
        if group and (len(group) == policy.group or values + more > policy.group_values):
            yield group
            group, values = [], 0
        group.append(signature)
        values += more
    if group:
        yield group


def missing(signatures: Iterable[AnySignature], profile: Profile, policy: MeasurementPolicy) -> list[AnySignature]:
    """The signatures that ``fill`` would measure, each once; empty ones need no latency.

    Raises:
        IncompatibleError: A signature is of another precision than the profile.
    """
    enough = {"ok"} if policy.again else {"ok", "degraded"}
    wanted = [signature for signature in signatures if not signature.empty]
    sample, pending = rebuilt(wanted, policy), {}
    for one in wanted:
        row, builds = profile.get(one), policy.rebuilds if one.key in sample else 1
        if row is None or row.status not in enough or (row.timing is not None and row.timing.builds < builds):
            pending[one.key] = one
    for key, signature in pending.items():
        if signature.precision != (precision := profile.key.device.precision):
            raise IncompatibleError(f"profile {profile.path} is of {precision}, it cannot hold: {key}")
    return list(pending.values())


def rebuilt(signatures: Iterable[AnySignature], policy: MeasurementPolicy) -> frozenset[str]:
    """Keys of the sample that is built several times: one operation of eight, by hash, and one at least."""
    if policy.rebuilds == 1:
        return frozenset()
    keys = {one.key for one in signatures if not one.empty}
    return frozenset(sorted(keys, key=lambda key: sha256(key.encode()).digest())[: ceil(len(keys) / _ONE_OF)])


def compare(engines: Mapping[str, Timed], policy: MeasurementPolicy) -> dict[str, Timing]:
    """Time engines end to end, interleaved, until all latencies are sure enough or the time is up."""
    return compare_builds({name: [engine] for name, engine in engines.items()}, policy)


def compare_builds(engines: Mapping[str, Sequence[Timed]], policy: MeasurementPolicy) -> dict[str, Timing]:
    """The same of networks that were built several times; a network's engines take turns.

    The engines are each other's sentinels: a round in which one of them was slower than at its best by more than
    ``policy.disturbance`` was disturbed, and counts for none of them. Which rounds those were is decided again when the
    machine turns out to have been slow from the start.
    """
    if not engines:
        return {}
    trials = [Trial(builds, policy) for builds in engines.values()]
    rounds: list[list[Burst]] = []
    while True:
        rounds.extend([trial.burst() for trial in trials] for _ in range(SMALLEST_SAMPLE))
        timings = [timing_of(bursts) for bursts in zip(*_undisturbed(rounds, policy), strict=True)]
        enough = timings[0].samples >= max(policy.min_samples, SMALLEST_SAMPLE)
        sure = enough and all(timing.relative_ci <= policy.relative_ci for timing in timings)
        if sure or any(trial.late for trial in trials):
            return dict(zip(engines, timings, strict=True))


def _undisturbed(rounds: list[list[Burst]], policy: MeasurementPolicy) -> list[list[Burst]]:
    """The rounds in which no engine was slow; all of them, where those are too few to go by."""
    slow = np.zeros(len(rounds), bool)
    for bursts in zip(*rounds, strict=True):
        samples, builds = (np.array([getattr(one, of) for one in bursts]) for of in ("sample", "build"))
        for build in np.unique(builds):  # one may be slower than another and as undisturbed
            own = np.flatnonzero(builds == build)
            if len(own) < WINDOW:
                return rounds
            windows = np.lib.stride_tricks.sliding_window_view(samples[own], WINDOW)
            slow[own] |= samples[own] > (1 + policy.disturbance) * np.median(windows, axis=-1).min()
    quiet = [one for one, disturbed in zip(rounds, slow, strict=True) if not disturbed]
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
    builds = max(policy.builds, 1 + (policy.rebuilds - 1) / _ONE_OF)
    return builds * _BUILD_SECONDS + min(sampling, max(policy.max_seconds, SMALLEST_SAMPLE * run))


def _seconds_per_mac(profile: Profile) -> float:
    paces = [
        1e-9 * row.timing.median_ns / (row.signature.batch * row.signature.macs)
        for row in profile
        if row.timing is not None and row.signature.macs
    ]
    return float(np.median(paces)) if paces else _SECONDS_PER_MAC


def _measured(group: Sequence[AnySignature], runner: DeviceRunner, sentinel: Sentinel) -> Iterator[ProfileRow]:
    """The rows of a group, each as soon as it is known."""
    runtime, policy, options, gap_model = runner.runtime, runner.policy, runner.options, runner.gap_model
    trials: dict[AnySignature, Trial[Engine]] = {}
    for signature in group:
        try:
            again = signature.key in runner.rebuilt
            builds = max(policy.builds, policy.rebuilds if again else 1)
            anew = replace(options, anew=again)
            engines = [_built(signature, runtime, options, gap_model)]
            engines += [_built(signature, runtime, anew, gap_model) for _ in range(1, builds)]
            trials[signature] = Trial(engines, policy, runtime.doubt(engines[0]))
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
        for signature, burst in bursts.items():
            trials[signature].accept(Round(burst, reading, condition, disturbed))
            if trials[signature].finished:
                yield _row(signature, trials.pop(signature), sentinel, runtime, policy)


def _built(signature: AnySignature, runtime: Runtime, options: BuildOptions, gap_model: GapModel = _no_model) -> Engine:
    model = gap_model(signature) if isinstance(signature, GapSignature) else candidate_model(signature)
    return runtime.build(model, options)


def _row(
    signature: AnySignature, trial: Trial[Engine], sentinel: Sentinel, runtime: Runtime, policy: MeasurementPolicy
) -> ProfileRow:
    reason = trial.doubt
    clocks = [one.condition.clock_mhz for one in trial.rounds if one.condition.clock_mhz is not None]
    temperatures = [one.condition.temperature_c for one in trial.rounds if one.condition.temperature_c is not None]
    return ProfileRow(
        signature,
        trial.timing.with_builds(),
        "ok" if reason is None else "degraded",
        reason,
        drift=round(float(np.median([one.reading for one in trial.rounds])) / sentinel.first, 4),
        clock_mhz=float(np.median(clocks)) if clocks else None,
        temperature_c=float(max(temperatures)) if temperatures else None,
        host_ns=_host_ns(runtime, trial, policy),
    )


def _host_ns(runtime: Runtime, trial: Trial[Engine], policy: MeasurementPolicy) -> int | None:
    """Latency of a request by the host's clock; in no more time than its runs took, for large tensors take long."""
    engine = trial.engines[0]
    first = runtime.host_times(engine, 1)
    if first is None:
        return None
    in_time = int(trial.spent_ns / max(float(first[0]), 1.0))
    times = runtime.host_times(engine, max(1, min(policy.min_samples, in_time)))
    return None if times is None else ceil(float(np.median(times)))
