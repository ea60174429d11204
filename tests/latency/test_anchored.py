from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.latency.test_measure import OPTIONS, POLICY, RUN_NS, SIGNATURES, Machine, ScriptedEngine, filled
from trt_layermerge.errors import Caution
from trt_layermerge.latency.anchored import ANCHORS, anchored, anchors, scaled
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.statistics import Timing

NETWORK_NS = 7_000_000


def network_of(machine: Machine) -> ScriptedEngine:
    return replace(machine.build_any(), run_ns=NETWORK_NS)


def at(tmp_path: Path, slowdown: float) -> tuple[Timing, float]:
    profile = filled(tmp_path, Machine())
    machine = Machine(slowdown=lambda burst: slowdown)
    return anchored(network_of(machine), profile, SIGNATURES, machine, OPTIONS, POLICY)


def test_a_machine_that_is_slower_now_changes_nothing(tmp_path: Path) -> None:
    quiet, pace = at(tmp_path / "quiet", 1.0)
    assert (quiet.median_ns, pace) == (NETWORK_NS, 1.0)
    slow, pace = at(tmp_path / "slow", 1.25)
    assert abs(slow.median_ns - NETWORK_NS) <= 10 and abs(pace - 0.8) < 1e-4


def beside(bursts: int) -> Machine:
    """A machine on which something takes every second run of the first bursts, and more of them than not."""
    return Machine(slowdown=lambda burst: 2.0 if burst < bursts and burst % 8 else 1.0)


def test_what_ran_beside_the_network_is_waited_for(tmp_path: Path) -> None:
    profile, machine = filled(tmp_path, Machine()), beside(40)
    timing, _ = anchored(network_of(machine), profile, SIGNATURES[1:2], machine, OPTIONS, POLICY)
    assert timing.median_ns == NETWORK_NS


def test_what_always_runs_beside_it_is_said(tmp_path: Path) -> None:
    machine = beside(1 << 40)
    profile = Profile.open(tmp_path / "p.jsonl", filled(tmp_path, Machine(), SIGNATURES[:1]).key)
    with pytest.warns(Caution, match="something else computes on this device"):
        timing, _ = anchored(network_of(machine), profile, SIGNATURES[1:], machine, OPTIONS, POLICY)
    assert timing.median_ns == 2 * NETWORK_NS


def test_without_a_sure_block_the_latency_is_what_it_is_now(tmp_path: Path) -> None:
    machine = Machine(slowdown=lambda burst: 1.25)
    profile = Profile.open(tmp_path / "p.jsonl", filled(tmp_path, Machine(), SIGNATURES[:1]).key)
    timing, pace = anchored(network_of(machine), profile, SIGNATURES[1:], machine, OPTIONS, POLICY)
    assert (timing.median_ns, pace) == (1.25 * NETWORK_NS, 1.0)


def test_anchors_are_the_longest_that_are_sure(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine())
    longest, doubtful = SIGNATURES[3], SIGNATURES[4]
    timing = Timing(9 * RUN_NS, RUN_NS, 10 * RUN_NS, RUN_NS, 10 * RUN_NS, 0.1, 30)
    profile.add(ProfileRow(longest, timing))
    profile.add(ProfileRow(doubtful, timing, "degraded", "too noisy"))
    profile.add(ProfileRow(SIGNATURES[5], None, "failed", "no"))
    found = anchors(profile, [*SIGNATURES, *SIGNATURES])
    assert len(found) == ANCHORS and next(iter(found)) == longest
    assert doubtful not in found and SIGNATURES[5] not in found


@given(st.floats(0.01, 100))
def test_a_scaled_timing_is_still_one(factor: float) -> None:
    timing = scaled(Timing(1000, 990, 1010, 980, 1100, 0.1, 30), factor)
    assert timing.p5_ns <= timing.ci_low_ns <= timing.median_ns <= timing.ci_high_ns <= timing.p95_ns
    assert timing.median_ns >= 1000 * factor and timing.p90_ns is None
    told = scaled(Timing(1000, 990, 1010, 980, 1100, 0.1, 30, p90_ns=1050, p99_ns=1200), factor)
    assert 1050 * factor <= told.p90_ns <= told.p99_ns < 1200 * factor + 1
