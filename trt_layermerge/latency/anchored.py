"""Latencies of whole networks at the speed that the machine had when its profile was filled.

A machine may be a fifth slower for minutes and say nothing of it. Predictions subtract a network's blocks, which the
profile knows, from the network itself, which is timed later: both must be of the same speed. So the network is timed in
turns with blocks that the profile knows, its *anchors*, and their rows tell how fast the machine is now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil, floor

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import say
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.runtimes.base import BuildOptions, Engine, Runtime

ATTEMPTS = 4
"""Times that a network is timed, at most, where something else computes beside it."""

ANCHORS = 4
"""Blocks that a network is timed interleaved with; the ones that take longest, for they are timed most surely."""


def anchored(
    engine: Engine,
    profile: Profile,
    signatures: Iterable[Signature],
    runtime: Runtime,
    options: BuildOptions,
    policy: MeasurementPolicy,
) -> tuple[Timing, float]:
    """Time an engine interleaved with blocks that a profile knows.

    Args:
        engine: Of a whole network.
        profile: Of this device.
        signatures: Blocks of the network; those that the profile is sure of may be anchors.
        runtime: Builds the blocks.
        options: As the profile's blocks were built.
        policy: How sure the latency has to be.

    Returns:
        The latency at the profile's speed, and what it was multiplied by for that: 0.8 where the machine now takes 1.25
        times as long; 1 where the profile is sure of none of the blocks.
    """
    known = anchors(profile, signatures)
    engines = {"": engine} | {one.key: runtime.build(candidate_model(one), options) for one in known}
    timings = _least_disturbed(engines, policy)
    timing = timings.pop("")
    if not timings:
        return timing, 1.0
    pace = sum(known.values()) / sum(now.median_ns for now in timings.values())
    return scaled(timing, pace), pace


def _least_disturbed(engines: Mapping[str, Engine], policy: MeasurementPolicy) -> dict[str, Timing]:
    """Time engines until nothing ran beside most runs of the network, or as often as ``ATTEMPTS`` says.

    The anchors' runs are short, and between those of another process; the network's, which are not, would seem to take
    twice as long as its blocks, and a plan would have to save what is not there.
    """
    found: list[dict[str, Timing]] = []
    while len(found) < ATTEMPTS and (not found or policy.stretched(found[-1][""])):
        found.append(compare(engines, policy))
    best = min(found, key=lambda timings: timings[""].median_ns)
    if policy.stretched(best[""]):
        say(
            "something else computes on this device: the original's median latency is "
            f"{best[''].median_ns / best[''].p5_ns:.1f} times its 5th percentile, and plans rest on it; with less "
            "beside it, remove baseline.json and run again"
        )
    return best


def anchors(profile: Profile, signatures: Iterable[Signature]) -> dict[Signature, int]:
    """The blocks that take longest of those that a profile is sure of, with their latencies in ns."""
    rows = {one: profile.get(one) for one in dict.fromkeys(signatures) if not one.empty}
    sure = {one: row.timing.median_ns for one, row in rows.items() if row and row.status == "ok" and row.timing}
    return dict(sorted(sure.items(), key=lambda item: -item[1])[:ANCHORS])


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
