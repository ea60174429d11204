from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.latency.test_measure import OPTIONS, POLICY, RUN_NS, SIGNATURES, Machine, ScriptedEngine, filled
from trt_layermerge.errors import Caution, InconclusiveError
from trt_layermerge.latency.anchored import ANCHORS, anchored, anchors, scaled
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.statistics import Timing

NETWORK_NS = 7_000_000


def network_of(machine: Machine) -> ScriptedEngine:
    return replace(machine.build_any(), run_ns=NETWORK_NS)


def timed(profile: Profile, machine: Machine, policy: MeasurementPolicy = POLICY) -> tuple[Timing, float]:
    return anchored(network_of(machine), profile, anchors(profile, SIGNATURES), machine, OPTIONS, policy)


def at(tmp_path: Path, slowdown: float) -> tuple[Timing, float]:
    return timed(filled(tmp_path, Machine()), Machine(slowdown=lambda burst: slowdown))


def test_a_machine_that_is_slower_now_changes_nothing(tmp_path: Path) -> None:
    quiet, pace = at(tmp_path / "quiet", 1.0)
    assert (quiet.median_ns, pace) == (NETWORK_NS, 1.0)
    slow, pace = at(tmp_path / "slow", 1.25)
    assert abs(slow.median_ns - NETWORK_NS) <= 10 and abs(pace - 0.8) < 1e-4


def test_a_machine_that_is_far_slower_now_changes_nothing_and_is_told(tmp_path: Path) -> None:
    with pytest.warns(Caution, match=r"takes 3\.0 times as long now .* 21 ms now, is counted as 7 ms, to 0%"):
        slow, pace = at(tmp_path, 3.0)
    assert abs(slow.median_ns - NETWORK_NS) <= 10 and pace == pytest.approx(1 / 3)


def test_a_profile_of_a_machine_that_was_far_slower_is_refused(tmp_path: Path) -> None:
    faster, pace = at(tmp_path, 1 / 1.4)
    assert abs(faster.median_ns - NETWORK_NS) <= 100 and pace == pytest.approx(1.4, rel=1e-3)
    with pytest.raises(
        InconclusiveError, match=r"p\.jsonl was filled while the machine was slower: .* 0\.33 times"
    ) as caught:
        at(tmp_path, 1 / 3)
    assert caught.value.exit_code == 8 and "--profiles" in str(caught.value.hint)


@dataclass
class Shared(Machine):
    """A machine whose only core other processes take for ``stall_ns`` after every ``slice_ns`` of ours."""

    slice_ns: float = 1e6
    stall_ns: float = 0.0
    worked_ns: float = 0.0

    def build(self, model, options, shapes=None) -> Slices:
        engine = super().build(model, options, shapes)
        return Slices(self, engine.run_ns, engine.random)


class Slices(ScriptedEngine):
    machine: Shared

    def time(self, repeats: int) -> np.ndarray:
        machine, ends = self.machine, self.machine.worked_ns + self.run_ns * np.arange(repeats + 1)
        machine.worked_ns = float(ends[-1])
        return (self.run_ns + machine.stall_ns * np.diff(ends // machine.slice_ns)).astype(np.int64)


def test_what_takes_slices_of_the_core_stretches_the_network_and_not_its_blocks(tmp_path: Path) -> None:
    """Load triples: a block of 0.1 ms takes 0.1 ms nine times of ten, the network three times as long every time."""
    profile, machine = filled(tmp_path, Machine()), Shared(stall_ns=2e6)
    block = machine.build(_Named(SIGNATURES[0].key), OPTIONS)
    assert np.median(block.time(1000)) == RUN_NS and block.time(1000).mean() == pytest.approx(3 * RUN_NS)
    network = Slices(machine, NETWORK_NS, np.random.default_rng(0))
    assert network.time(20).min() == 3 * NETWORK_NS
    with pytest.warns(Caution, match=r"takes 3\.\d times as long now"):
        timing, _ = anchored(network, profile, anchors(profile, SIGNATURES), machine, OPTIONS, POLICY)
    assert timing.median_ns == pytest.approx(NETWORK_NS, rel=0.1)
    assert timing.ci_low_ns <= NETWORK_NS <= timing.ci_high_ns


@dataclass
class _Graph:
    name: str


@dataclass
class _Named:
    key: str

    @property
    def graph(self) -> _Graph:
        return _Graph(self.key)


def beside(bursts: int, share: int = 8) -> Machine:
    """A machine on which something takes most runs of the first bursts: they take twice as long."""
    return Machine(slowdown=lambda burst: 2.0 if burst < bursts and burst % share else 1.0)


def test_what_ran_beside_the_network_is_waited_for(tmp_path: Path) -> None:
    timing, pace = timed(filled(tmp_path, Machine()), beside(40))
    assert (timing.median_ns, pace) == (NETWORK_NS, 1.0)


def test_what_always_runs_beside_it_is_refused_where_there_are_no_anchors(tmp_path: Path) -> None:
    machine = beside(1 << 40)
    profile = Profile.open(tmp_path / "p.jsonl", filled(tmp_path, Machine(), SIGNATURES[:1]).key)
    with pytest.raises(
        InconclusiveError, match=r"median latency is 2\.0 times its 5th percentile, and profile .*p\.jsonl"
    ):
        anchored(network_of(machine), profile, {}, machine, OPTIONS, POLICY)


def test_without_anchors_the_latency_is_what_it_is_now(tmp_path: Path) -> None:
    machine, profile = Machine(slowdown=lambda burst: 1.25), filled(tmp_path, Machine(), SIGNATURES[:1])
    timing, pace = anchored(network_of(machine), profile, {}, machine, OPTIONS, POLICY)
    assert (timing.median_ns, pace) == (1.25 * NETWORK_NS, 1.0)


def of_two_days(tmp_path: Path, factors: Sequence[float]) -> Profile:
    """A profile whose rows, the four longest, were measured at different speeds."""
    profile = filled(tmp_path, Machine(), SIGNATURES[: len(factors)])
    for signature, factor in zip(SIGNATURES, factors, strict=False):
        profile.add(ProfileRow(signature, scaled(Timing.of([RUN_NS] * 6), factor)))
    return profile


def test_rows_of_different_days_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InconclusiveError, match=r"timed again, take 0\.33 to 1\.00 times as long as their rows"
    ) as caught:
        timed(of_two_days(tmp_path, [1, 1, 3, 3]), Machine())
    assert "the original takes 7 ms now" in str(caught.value) and "different speeds" in str(caught.value.hint)


def test_what_rows_disagree_by_is_part_of_the_interval(tmp_path: Path) -> None:
    timing, _ = timed(of_two_days(tmp_path, [1, 1, 1.1, 1.1]), Machine())
    assert timing.ci_low_ns <= NETWORK_NS <= 1.1 * NETWORK_NS <= timing.ci_high_ns
    assert 0.04 < timing.relative_ci < 0.08


def test_a_machine_that_never_is_the_same_is_refused(tmp_path: Path) -> None:
    """Each attempt finds a speed of its own for the network, which its blocks do not share."""
    random, network_only = np.random.default_rng(0), 1.5 * NETWORK_NS
    machine = Machine()

    class Restless(ScriptedEngine):
        def time(self, repeats: int) -> np.ndarray:
            return (super().time(repeats) * random.uniform(1, 4)).astype(np.int64)

    network = Restless(machine, network_only, random)
    profile = filled(tmp_path, Machine())
    with pytest.raises(InconclusiveError, match="known to"):
        anchored(network, profile, anchors(profile, SIGNATURES), machine, OPTIONS, replace(POLICY, max_seconds=0.05))


def test_a_policy_that_asks_for_less_refuses_less(tmp_path: Path) -> None:
    profile = of_two_days(tmp_path, [1, 1, 1.8, 1.8])
    with pytest.raises(InconclusiveError):
        timed(profile, Machine())
    assert timed(profile, Machine(), replace(POLICY, relative_ci=0.5, spread=1.0))[1] > 1


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
    assert anchors(profile, SIGNATURES[4:6]) == {doubtful: 9 * RUN_NS}, "better than none"
    assert len(anchors(profile, SIGNATURES, RUN_NS)) == ANCHORS and longest not in anchors(profile, SIGNATURES, RUN_NS)


@given(st.floats(0.01, 100))
def test_a_scaled_timing_is_still_one(factor: float) -> None:
    timing = scaled(Timing(1000, 990, 1010, 980, 1100, 0.1, 30), factor)
    assert timing.p5_ns <= timing.ci_low_ns <= timing.median_ns <= timing.ci_high_ns <= timing.p95_ns
    assert timing.median_ns >= 1000 * factor and timing.p90_ns is None
    told = scaled(Timing(1000, 990, 1010, 980, 1100, 0.1, 30, p90_ns=1050, p99_ns=1200), factor)
    assert 1050 * factor <= told.p90_ns <= told.p99_ns < 1200 * factor + 1
