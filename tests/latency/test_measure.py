"""Filling a profile, on a machine that does what a script says: engines whose clock is a list of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import IncompatibleError, ModelError
from trt_layermerge.latency import measure
from trt_layermerge.latency.measure import SENTINEL, DeviceRunner, compare, estimate_seconds, fill, missing, rebuilt
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import BuildOptions, Condition, Device
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime

OPTIONS = BuildOptions()
POLICY = MeasurementPolicy(max_seconds=0.5, group=8)
SIGNATURES = [Signature(1, (c, 8, 8), Geometry(c, c, (3, 3), padding=(1, 1, 1, 1))) for c in range(1, 21)]
RUN_NS, SENTINEL_NS = 100_000, 1_000_000


@dataclass
class Machine:
    """A runtime without a device.

    ``slowdown`` is a factor on everything, by the number of bursts timed so far, ``stretch`` on all but the sentinel.
    """

    slowdown: Callable[[int], float] = lambda burst: 1.0
    stretch: Callable[[int], float] = lambda burst: 1.0
    noise: float = 0.0
    fails: frozenset[str] = frozenset()
    kill_after_builds: int | None = None
    condition_at: Callable[[int], Condition | None] = lambda round_: None
    doubted: str | None = None
    copying_ns: int | None = None
    copied: list[int] = field(default_factory=list)
    anew: list[bool] = field(default_factory=list)
    rounds: int = 0
    bursts: int = 0
    built: list[str] = field(default_factory=list)
    name: str = "machine"

    def describe(self, options: BuildOptions) -> Device:
        return Device("fake", self.name, "1", None, options.precision, options.threads, "script", "none")

    def condition(self) -> Condition | None:
        self.rounds += 1
        return self.condition_at(self.rounds)

    def doubt(self, engine) -> str | None:
        return self.doubted

    def host_times(self, engine, repeats: int) -> np.ndarray | None:
        self.copied.append(repeats)
        return None if self.copying_ns is None else np.arange(repeats) + RUN_NS + self.copying_ns

    def build(self, model, options, shapes=None) -> ScriptedEngine:
        key = model.graph.name
        self.anew.append(options.anew)
        if key in self.fails:
            raise ModelError(f"cannot build {key}", hint="nothing")
        self.built.append(key)
        if self.kill_after_builds is not None and len(self.built) > self.kill_after_builds:
            raise KeyboardInterrupt
        return ScriptedEngine(self, SENTINEL_NS if key == SENTINEL.key else RUN_NS, np.random.default_rng(len(key)))

    def build_any(self) -> ScriptedEngine:
        return ScriptedEngine(self, RUN_NS, np.random.default_rng(0))

    def load(self, path: Path, options: BuildOptions) -> ScriptedEngine:
        raise NotImplementedError


@dataclass
class ScriptedEngine:
    machine: Machine
    run_ns: float
    random: np.random.Generator
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def time(self, repeats: int) -> np.ndarray:
        factor = self.machine.slowdown(self.machine.bursts) * self.random.lognormal(0, self.machine.noise)
        if self.run_ns != SENTINEL_NS:
            factor *= self.machine.stretch(self.machine.bursts)
        self.machine.bursts += 1
        return np.full(repeats, self.run_ns * factor).astype(np.int64)

    def run(self, inputs):
        raise NotImplementedError

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def describe(self) -> Device:
        return self.machine.describe(OPTIONS)


def open_profile(tmp_path: Path, machine: Machine | None = None) -> Profile:
    return Profile.open(tmp_path / "p.jsonl", ProfileKey.of((machine or Machine()).describe(OPTIONS)))


def filled(tmp_path: Path, machine: Machine, signatures=SIGNATURES, policy=POLICY) -> Profile:
    profile = open_profile(tmp_path)
    fill(profile, signatures, DeviceRunner(machine, OPTIONS, policy, rebuilt=rebuilt(signatures, policy)))
    return Profile.open(profile.path, profile.key)


def test_what_differs_from_build_to_build_is_part_of_the_interval(tmp_path: Path) -> None:
    """Each build is 10 % slower than the one before: one alone is sure of itself, three are not of each other."""

    class Drawn(Machine):
        def build(self, model, options, shapes=None) -> ScriptedEngine:
            engine = super().build(model, options, shapes)
            engine.run_ns *= 1.1 ** self.built.count(model.graph.name)
            return engine

    policy, signature = replace(POLICY, relative_ci=0.02, max_seconds=0.05), SIGNATURES[:1]
    for builds in (1, 3):
        machine = Drawn()
        (row,) = filled(tmp_path / str(builds), machine, signature, replace(policy, builds=builds))
        assert machine.built.count(signature[0].key) == builds and row.timing is not None
        assert row.timing.builds == builds and row.status == ("ok" if builds == 1 else "degraded")
        assert row.timing.ci_low_ns <= RUN_NS * 1.1 ** ((builds + 1) // 2) + 1
        assert row.timing.ci_high_ns >= RUN_NS * 1.1 ** ((builds + 1) // 2) - 1
    assert row.timing.p5_ns < 1.15 * RUN_NS < 1.3 * RUN_NS < row.timing.p95_ns


def test_no_group_begins_when_the_time_is_up(tmp_path: Path) -> None:
    machine, profile = Machine(), open_profile(tmp_path)
    assert (
        fill(profile, SIGNATURES, DeviceRunner(machine, OPTIONS, POLICY), max_seconds=0.0) == 0 and machine.built == []
    )
    seconds = iter([0.0, 1.0, 59.0, 60.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure.time, "monotonic", lambda: next(seconds))
        measured = fill(profile, SIGNATURES, DeviceRunner(machine, OPTIONS, POLICY), max_seconds=60.0)
    assert measured == len(profile) == 2 * POLICY.group < len(SIGNATURES)
    assert fill(profile, SIGNATURES, DeviceRunner(machine, OPTIONS, POLICY)) == len(SIGNATURES) - measured


@given(
    st.lists(st.sampled_from(SIGNATURES), unique=True),
    st.integers(1, 8),
    st.integers(1, 10**7),
    st.integers(1, 3),
)
def test_a_group_holds_no_more_candidates_and_values_than_it_may(
    pending: list[Signature], most: int, values: int, builds: int
) -> None:
    policy = replace(POLICY, group=most, group_values=values, builds=builds)
    groups = list(measure._groups(pending, policy))
    assert [one for group in groups for one in group] == pending and all(groups)
    held = [builds * sum(one.values for one in group) for group in groups]
    assert all(len(group) <= most for group in groups)
    assert all(now <= values or len(group) == 1 for group, now in zip(groups, held, strict=True))
    for group, now, after in zip(groups, held, groups[1:], strict=False):
        assert len(group) == most or now + builds * after[0].values > values, "no group is smaller than it need be"


def test_a_quiet_machine_tells_the_truth(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    profile = open_profile(tmp_path)
    fill(profile, SIGNATURES, DeviceRunner(Machine(), OPTIONS, POLICY), lambda *call, **_: calls.append(call))
    assert {row.signature for row in profile} == set(SIGNATURES)
    for row in profile:
        assert (row.status, row.timing.median_ns, row.drift) == ("ok", RUN_NS, 1.0)
        assert row.timing.samples == POLICY.min_samples
    assert [call[:2] for call in calls] == [(i, 20) for i in range(1, 21)]
    assert calls[0][2] == SIGNATURES[0].key


HOT = Condition(clock_mhz=900.0, temperature_c=91.0, held_back=("too hot (hardware)",))
WELL = Condition(clock_mhz=1650.0, temperature_c=61.0)


def test_rows_tell_the_clock_and_the_temperature_that_the_device_told(tmp_path: Path) -> None:
    for row in filled(tmp_path, Machine(condition_at=lambda round_: WELL)):
        assert (row.status, row.clock_mhz, row.temperature_c) == ("ok", 1650.0, 61.0)


def test_rounds_of_a_device_that_held_itself_back_do_not_count(tmp_path: Path, monkeypatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("trt_layermerge.latency.measure.time.sleep", pauses.append)
    machine = Machine(condition_at=lambda round_: HOT if round_ in (2, 3) else WELL)
    for row in filled(tmp_path, machine):
        assert (row.status, row.temperature_c) == ("ok", 61.0)
    assert pauses == [POLICY.cooling_seconds] * 2


def test_a_device_that_never_cools_leaves_degraded_rows_that_say_why(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trt_layermerge.latency.measure.time.sleep", lambda seconds: None)
    for row in filled(tmp_path, Machine(condition_at=lambda round_: HOT), SIGNATURES[:2]):
        assert row.status == "degraded" and "too hot (hardware)" in row.reason and row.clock_mhz == 900.0


def test_noise_takes_more_samples(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine(noise=0.08), policy=replace(POLICY, disturbance=9, max_seconds=60))
    for row in profile:
        assert row.status == "ok" and row.timing.relative_ci <= POLICY.relative_ci
        assert row.timing.samples > POLICY.min_samples
        assert row.timing.median_ns == pytest.approx(RUN_NS, rel=0.05)


def test_too_much_noise_is_admitted_in_time(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine(noise=0.5), SIGNATURES[:3], replace(POLICY, disturbance=9))
    for row in profile:
        assert row.status == "degraded" and "when time is up" in row.reason
        assert row.timing.samples * 0.005 < 2 * POLICY.max_seconds


def test_what_the_runtime_doubts_is_degraded_however_alike_its_samples_are(tmp_path: Path) -> None:
    for row in filled(tmp_path, Machine(doubted="nobody has measured it"), SIGNATURES[:3]):
        assert (row.status, row.reason, row.timing.median_ns) == ("degraded", "nobody has measured it", RUN_NS)


def test_what_was_degraded_is_measured_again_only_on_demand(tmp_path: Path) -> None:
    shaky = replace(POLICY, disturbance=9)
    profile = filled(tmp_path, Machine(noise=0.5), SIGNATURES[:3], shaky)
    before = profile.path.read_bytes()
    quiet = Machine()
    filled(tmp_path, quiet, SIGNATURES[:3])
    assert quiet.built == [] and profile.path.read_bytes() == before
    assert {row.status for row in filled(tmp_path, quiet, SIGNATURES[:3], replace(POLICY, again=True))} == {"ok"}


def test_disturbed_rounds_do_not_count(tmp_path: Path) -> None:
    # A neighbour doubles all latencies for 30 bursts out of every 100.
    profile = filled(tmp_path, Machine(slowdown=lambda burst: 2.0 if burst % 100 >= 70 else 1.0))
    for row in profile:
        assert row.status == "ok" and row.timing.median_ns == RUN_NS


def test_a_machine_that_stays_slow_is_measured_but_not_trusted(tmp_path: Path) -> None:
    machine = Machine(slowdown=lambda burst: 1.0 if burst < 30 else 1.5)
    profile = filled(tmp_path, machine, SIGNATURES[:4])
    for row in profile:
        assert row.status == "degraded" and "sentinel" in row.reason
        assert row.drift == pytest.approx(1.5)
    bursts = 4 * (POLICY.min_samples * 2 + POLICY.patience + 1)
    assert machine.bursts < 1.5 * bursts, "patience ends"


@pytest.mark.parametrize(("stretch", "status"), [(6.0, "degraded"), (1.4, "ok")])
def test_what_stretches_most_runs_alike_is_not_taken_for_the_truth(tmp_path: Path, stretch: float, status: str) -> None:
    """A job beside that the sentinel's short runs do not see: a narrow interval, and no median of the candidate."""
    machine = Machine(stretch=lambda burst: stretch if burst % 11 else 1.0)
    profile = filled(tmp_path, machine, SIGNATURES[:2])
    for row in profile:
        assert row.timing.relative_ci < POLICY.relative_ci
        assert row.status == status and (status == "ok" or "something ran beside" in row.reason)
    again = filled(tmp_path, Machine(), SIGNATURES[:2], replace(POLICY, again=True))
    assert {row.status for row in again} == {"ok"}


@pytest.mark.parametrize(("period", "status"), [(10, "ok"), (6, "ok"), (3, "degraded")])
def test_a_fifth_of_the_samples_may_be_disturbed(tmp_path: Path, period: int, status: str) -> None:
    # No patience at all; a round is one burst of the candidate and one of the sentinel.
    machine = Machine(slowdown=lambda burst: 1.5 if burst > 30 and burst // 2 % period == 0 else 1.0)
    (row,) = filled(tmp_path, machine, SIGNATURES[:1], replace(POLICY, patience=-1000, min_samples=60))
    assert row.status == status and row.timing.median_ns == RUN_NS


def test_slow_drift_is_written_down(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine(slowdown=lambda burst: 1 + burst * 1e-5))
    drifts = [profile.get(signature).drift for signature in SIGNATURES]
    assert drifts == sorted(drifts) and drifts[0] < drifts[-1] < 1.05
    assert all(row.status == "ok" for row in profile)


def test_a_machine_that_recovers_sets_the_standard(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine(slowdown=lambda burst: 2.0 if burst < 40 else 1.0))
    assert [row.timing.median_ns for row in profile][-1] == RUN_NS


def test_what_cannot_be_built_is_written_down_and_tried_the_next_time(tmp_path: Path) -> None:
    bad = SIGNATURES[3].key
    machine = Machine(fails=frozenset([bad]))
    profile = filled(tmp_path, machine)
    row = profile.get(SIGNATURES[3])
    assert (row.status, row.reason, row.timing) == ("failed", f"cannot build {bad}", None)
    assert len(profile) == 20 and sum(row.status == "ok" for row in profile) == 19
    again = Machine()
    assert filled(tmp_path, again).get(SIGNATURES[3]).status == "ok"
    assert again.built == [SENTINEL.key, bad], "nothing else is measured twice"


def test_an_activation_without_onnx_form_fails_alone(tmp_path: Path) -> None:
    odd = replace(SIGNATURES[0], activation="softsign")
    profile = filled(tmp_path, Machine(), [odd, SIGNATURES[1]])
    assert "softsign" in profile.get(odd).reason and profile.get(SIGNATURES[1]).status == "ok"


@pytest.mark.parametrize("builds", [0, 1, 5, 9, 12, 17, 20])
def test_a_kill_loses_only_what_is_in_flight(tmp_path: Path, builds: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path, Machine(kill_after_builds=builds))
    kept = {row.signature.key for row in open_profile(tmp_path)}
    assert len(kept) == max(builds - 1, 0) // POLICY.group * POLICY.group
    again = Machine()
    assert len(filled(tmp_path, again)) == 20
    assert set(again.built) == {s.key for s in SIGNATURES} - kept | {SENTINEL.key}
    assert len(again.built) == len(set(again.built))


def test_a_full_profile_is_not_touched(tmp_path: Path) -> None:
    before, machine = filled(tmp_path, Machine()).sha256, Machine()
    assert filled(tmp_path, machine).sha256 == before and machine.built == []


def test_repeated_and_empty_signatures_cost_nothing(tmp_path: Path) -> None:
    machine, empty = Machine(), Signature(1, (3, 8, 8), None)
    filled(tmp_path, machine, [SIGNATURES[0], empty, SIGNATURES[0]])
    assert machine.built == [SENTINEL.key, SIGNATURES[0].key]


def test_a_row_is_on_disk_before_the_next_is_known(tmp_path: Path) -> None:
    profile = open_profile(tmp_path)
    lines = lambda: len(profile.path.read_text().splitlines())  # noqa: E731
    seen: list[int] = []
    fill(profile, SIGNATURES[:3], DeviceRunner(Machine(), OPTIONS, POLICY), lambda *_, **__: seen.append(lines()))
    assert seen == [2, 3, 4]


def test_a_profile_of_another_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="runtime: machine, here other"):
        fill(open_profile(tmp_path), SIGNATURES, DeviceRunner(Machine(name="other"), OPTIONS, POLICY))
    with pytest.raises(IncompatibleError, match="fp16"):
        missing([replace(SIGNATURES[0], precision="fp16")], open_profile(tmp_path), MeasurementPolicy())


def test_engines_are_compared_in_turns() -> None:
    machine = Machine(slowdown=lambda burst: 1 + burst / 1000, noise=0.01)
    random = np.random.default_rng(0)
    engines = {"before": ScriptedEngine(machine, 3e6, random), "after": ScriptedEngine(machine, 1e6, random)}
    timings = compare(engines, POLICY)
    assert list(timings) == ["before", "after"]
    assert timings["before"].samples == timings["after"].samples >= POLICY.min_samples
    assert timings["before"].median_ns / timings["after"].median_ns == pytest.approx(3, rel=0.03)
    assert compare({}, POLICY) == {}


@pytest.mark.parametrize("first_slow", [True, False])
def test_a_comparison_forgets_disturbed_rounds(first_slow: bool) -> None:
    # A neighbour that comes or goes half way through, in the middle of a round, and doubles all latencies.
    machine = Machine(noise=0.01, slowdown=lambda burst: 2.0 if (burst < 51) == first_slow else 1.0)
    engines = {name: ScriptedEngine(machine, ns, np.random.default_rng(7)) for name, ns in (("a", 3e5), ("b", 1e5))}
    timings = compare(engines, replace(POLICY, min_samples=40, max_seconds=2))
    assert timings["a"].median_ns == pytest.approx(3e5, rel=0.02)
    assert timings["a"].median_ns / timings["b"].median_ns == pytest.approx(3, rel=0.02)
    assert timings["a"].samples == timings["b"].samples


def test_a_comparison_on_a_wild_machine_ends_in_time() -> None:
    machine = Machine(noise=1.0)
    engines = {name: ScriptedEngine(machine, 1e6, np.random.default_rng(7)) for name in ("a", "b")}
    timings = compare(engines, replace(POLICY, max_seconds=0.2))
    assert timings["a"].samples >= 6 and timings["a"].relative_ci > POLICY.relative_ci


def test_very_slow_candidates_get_the_fewest_samples(tmp_path: Path) -> None:
    profile = filled(tmp_path, Machine(slowdown=lambda burst: 1000.0), SIGNATURES[:2], replace(POLICY, max_seconds=0.1))
    assert [row.timing.samples for row in profile] == [6, 6]


def test_the_estimate_is_of_the_right_size(tmp_path: Path) -> None:
    profile = open_profile(tmp_path)
    empty = estimate_seconds(SIGNATURES, profile, POLICY)
    assert 1 < empty < 20 and estimate_seconds([], profile, POLICY) == 0
    big = Signature(32, (64, 56, 56), Geometry(64, 64, (3, 3), padding=(1, 1, 1, 1)))
    assert estimate_seconds([big], profile, POLICY) > estimate_seconds(SIGNATURES[:1], profile, POLICY)
    slow = 10**6 * SIGNATURES[0].macs
    profile.add(ProfileRow(SIGNATURES[0], Timing(slow, slow, slow, slow, slow, 0.0, 30)))
    assert estimate_seconds(SIGNATURES[1:], profile, POLICY) > 2 * empty


def test_a_real_runtime_fills_a_profile(tmp_path: Path) -> None:
    runtime, options = OnnxRuntime(), BuildOptions(isolated=True)
    policy = MeasurementPolicy(relative_ci=1.0, min_samples=6, burst_seconds=1e-4, disturbance=9, spread=1e6)
    profile = Profile.open(tmp_path / "p.jsonl", ProfileKey.of(runtime.describe(options)))
    wanted = [*SIGNATURES[:2], Signature(1, (16, 8, 8), None, residual=True, activation="relu")]
    fill(profile, wanted, DeviceRunner(runtime, options, policy))
    assert {row.signature.key for row in profile} == {s.key for s in wanted}
    assert all(row.status == "ok" and row.timing.median_ns > 0 for row in profile)
    assert missing(wanted, profile, MeasurementPolicy()) == []
