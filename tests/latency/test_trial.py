"""Builds that take turns, single runs and requests: what a row tells besides the median."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.latency.test_measure import POLICY, RUN_NS, SENTINEL_NS, SIGNATURES, Machine, ScriptedEngine, filled
from trt_layermerge.latency.measure import SENTINEL, compare_builds


class Drawn(Machine):
    """Builds that choose anew are 3 % slower each than the one before."""

    def build(self, model, options, shapes=None) -> ScriptedEngine:
        engine = super().build(model, options, shapes)
        engine.run_ns *= 1 + 0.03 * options.anew * (self.built.count(model.graph.name) - 1)
        return engine


def test_one_operation_of_eight_is_built_again_and_tells_of_all(tmp_path: Path) -> None:
    machine, policy = Drawn(), replace(POLICY, rebuilds=3, max_seconds=0.05)
    profile = filled(tmp_path, machine, policy=policy)
    again = [row for row in profile if row.timing.builds == 3]
    assert len(again) == 3 == -(-len(SIGNATURES) // 8) and len(profile) == len(SIGNATURES)
    assert sum(machine.anew) == 2 * 3, "the first of each is built as ever"
    for row in again:
        assert row.timing.build_spread == pytest.approx(0.03 / 1.03, rel=0.01)
        assert row.timing.ci_high_ns >= 1.08 * RUN_NS
    assert profile.build_spread == pytest.approx(0.03 / 1.03, rel=0.01)
    once = next(row for row in profile if row.timing.builds == 1)
    known, wider = once.timing, profile.expected(once.signature)
    assert known.ci_high_ns == known.median_ns == wider.median_ns == RUN_NS and known.build_spread is None
    assert wider.ci_high_ns - RUN_NS == pytest.approx(1.96 * profile.build_spread * RUN_NS, rel=0.01)
    assert filled(tmp_path, quiet := Drawn(), policy=policy).build_spread and quiet.built == [], "the sample stays"


def test_a_profile_that_was_built_once_gets_its_sample_when_it_is_asked_for(tmp_path: Path) -> None:
    assert filled(tmp_path, Machine()).build_spread is None
    machine = Drawn()
    filled(tmp_path, machine, policy=replace(POLICY, rebuilds=2, max_seconds=0.05))
    assert len(set(machine.built) - {SENTINEL.key}) == 3 and len(machine.built) == 1 + 2 * 3


def test_requests_are_timed_beside_runs_where_something_is_copied(tmp_path: Path) -> None:
    assert {row.host_ns for row in filled(tmp_path / "cpu", Machine(), SIGNATURES[:2])} == {None}
    (row,) = filled(tmp_path / "gpu", Machine(copying_ns=50_000), SIGNATURES[:1])
    assert row.host_ns == pytest.approx(RUN_NS + 50_000 + POLICY.min_samples / 2, abs=1)


@pytest.mark.parametrize(("copying_ns", "requests"), [(50_000, POLICY.min_samples), (2 * 10**7, 7), (10**10, 1)])
def test_requests_take_no_longer_than_runs(tmp_path: Path, copying_ns: int, requests: int) -> None:
    """Copying takes as long as bytes do, whatever a run takes: these runs took 150 ms."""
    machine = Machine(copying_ns=copying_ns)
    (row,) = filled(tmp_path, machine, SIGNATURES[:1])
    assert machine.copied == [1, requests]
    assert row.host_ns == pytest.approx(copying_ns + RUN_NS, rel=1e-3)


def test_percentiles_are_of_single_runs(tmp_path: Path) -> None:
    """One run of twenty is ten times as slow: no sample shows it."""

    class Stumbling(ScriptedEngine):
        def time(self, repeats: int) -> np.ndarray:
            times = super().time(repeats)
            times[: round(0.05 * repeats)] *= 10
            return times

    class Clumsy(Machine):
        def build(self, model, options, shapes=None) -> ScriptedEngine:
            engine = super().build(model, options, shapes)
            return Stumbling(self, engine.run_ns, engine.random) if engine.run_ns != SENTINEL_NS else engine

    (row,) = filled(tmp_path, Clumsy(), SIGNATURES[:1])
    assert row.timing.p95_ns == row.timing.median_ns == RUN_NS
    assert row.timing.p90_ns == RUN_NS and row.timing.p99_ns == 10 * RUN_NS


def test_builds_of_one_network_take_turns_and_a_slow_one_is_not_disturbed() -> None:
    machine, random = Machine(noise=0.001), np.random.default_rng(0)
    engines = {
        name: [ScriptedEngine(machine, ns * f, random) for f in (1.0, 1.3)] for name, ns in (("a", 3e6), ("b", 1e6))
    }
    timings = compare_builds(engines, replace(POLICY, relative_ci=9.0))
    for name, fast in (("a", 3e6), ("b", 1e6)):
        assert timings[name].builds == 2 and timings[name].p5_ns < 1.01 * fast < 1.29 * fast < timings[name].p95_ns
        assert timings[name].build_spread == pytest.approx(0.3 / 2**0.5 / 1.15, rel=0.02)
