"""Profiles compared: in examples that hypothesis draws, and in simulated measurements counted many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import ExitCode, IncompatibleError
from trt_layermerge.latency.profile import Profile, ProfileKey, ProfileRow
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.regression.profiles import ProfileComparison, compare_profiles
from trt_layermerge.regression.ratio import verdict
from trt_layermerge.runtimes.base import Device

KEY = ProfileKey(Device("GPU", "tensorrt", "10.16", "550.54", "fp32", 1, "CUDA graphs", "not told"))
SWAPPED = {"slower": "faster", "faster": "slower", "same": "same", "unclear": "unclear"}
TOLERANCE = 0.0512345  # nothing below lies on its edge
LABELS = {"name": "device"}
"""As a profile calls what ``Device`` calls otherwise."""


def on(**changes: Any) -> ProfileKey:
    """The key of a device that differs in so much."""
    return ProfileKey(replace(KEY.device, **changes))


def signature(number: int) -> Signature:
    return Signature(8, (16, 28, 28), Geometry(16, number + 1, (3, 3), padding=(1, 1, 1, 1)), activation="relu")


def profile(rows: Sequence[ProfileRow], key: ProfileKey = KEY, folder: Path = Path("/nowhere")) -> Profile:
    """A profile in memory."""
    made = Profile.open(folder / "p.jsonl", key)
    made._rows = {row.signature.key: row for row in rows}
    return made


def rows_of(timings: Sequence[Timing]) -> list[ProfileRow]:
    return [ProfileRow(signature(number), timing) for number, timing in enumerate(timings)]


def compared(old: Sequence[ProfileRow], new: Sequence[ProfileRow], tolerance: float = TOLERANCE) -> ProfileComparison:
    return compare_profiles(profile(old), profile(new), tolerance)


def verdicts(found: ProfileComparison) -> dict[str, str]:
    return {pair.key: pair.verdict for pair in found.pairs}


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    p5, *steps = draw(st.tuples(st.integers(10**5, 10**6), *[st.integers(0, 30_000)] * 4))
    low, median, high, p95 = np.cumsum([p5 + steps[0], *steps[1:]]).tolist()
    return Timing(median, low, high, p5, p95, 0.01, draw(st.integers(3, 60)))


rows = st.builds(
    lambda found: [
        ProfileRow(signature(number), timing, *(("degraded", "noisy") if noisy else ("ok", None)))
        for number, (timing, noisy) in enumerate(found)
    ],
    st.lists(st.tuples(timings(), st.integers(0, 9).map(lambda n: n == 0)), min_size=1, max_size=25),
)


@given(rows)
def test_a_profile_is_the_same_as_itself(found: list[ProfileRow]) -> None:
    result = compared(found, found)
    assert set(verdicts(result).values()) == {"same"} and result.objection is None
    assert result.factor.value == 1 and result.repeated == len(found)


@given(rows, rows)
def test_the_reverse_of_slower_is_faster(old: list[ProfileRow], new: list[ProfileRow]) -> None:
    there, back = compared(old, new), compared(new, old)
    assert verdicts(back) == {key: SWAPPED[found] for key, found in verdicts(there).items()}
    assert there.factor.log == -back.factor.log
    assert (there.missing, there.added) == (back.added, back.missing)


def scaled(row: ProfileRow, factor: int) -> ProfileRow:
    timing = row.timing
    assert timing is not None
    names = ("median_ns", "ci_low_ns", "ci_high_ns", "p5_ns", "p95_ns")
    return replace(row, timing=replace(timing, **{name: factor * getattr(timing, name) for name in names}))


@given(rows, rows, st.integers(2, 9))
def test_a_common_factor_changes_no_verdict(old: list[ProfileRow], new: list[ProfileRow], factor: int) -> None:
    plain = compared(old, new)
    assume(plain.repeated == 0)
    slow = compared(old, [scaled(row, factor) for row in new])
    assert verdicts(slow) == verdicts(plain)
    assert slow.factor.value == pytest.approx(factor * plain.factor.value)


@given(rows, rows, st.randoms())
def test_the_order_of_rows_changes_nothing(old: list[ProfileRow], new: list[ProfileRow], random: object) -> None:
    shuffled = list(new)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = compared(old, new), compared(old, shuffled)
    assert (one.pairs, one.factor, str(one.objection)) == (other.pairs, other.factor, str(other.objection))


@given(rows, rows)
def test_the_worst_come_first_and_what_is_unclear_says_why(old: list[ProfileRow], new: list[ProfileRow]) -> None:
    pairs = compared(old, new).pairs
    order = [("slower", "unclear", "same", "faster").index(pair.verdict) for pair in pairs]
    assert [min(place, 2) for place in order] == sorted(min(place, 2) for place in order)
    assert all((pair.reason is None) == (pair.verdict != "unclear") for pair in pairs)


def measured(random: np.random.Generator, latencies: np.ndarray, noise: np.ndarray, size: int = 30) -> list[ProfileRow]:
    """Rows of simulated measurements: slow runs are more frequent than fast ones, as on a machine."""
    spread = noise[:, None] * (
        random.standard_normal((len(latencies), size)) + random.exponential(size=(len(latencies), size))
    )
    return rows_of([Timing.of(samples) for samples in latencies[:, None] * np.exp(spread)])


COUNT = 300
LATENCIES = np.geomspace(5e4, 5e6, COUNT)
NOISE = np.geomspace(0.002, 0.03, COUNT)[np.random.default_rng(1).permutation(COUNT)]


def test_equal_devices_regress_in_at_most_one_comparison_of_twenty() -> None:
    """At next to no tolerance, where a claim rests on nothing but its interval; and at 5 % in none."""
    random, trials, alarms, plain, at_5_percent = np.random.default_rng(0), 40, 0, 0, 0
    for _ in range(trials):
        old, new = (measured(random, LATENCIES, NOISE) for _ in range(2))
        found = compared(old, new, 1e-9)
        alarms += found.counts["slower"] + found.counts["faster"] > 0
        plain += any(verdict(pair.ratio, pair.ratio, 1e-9) == "slower" for pair in found.pairs)
        at_5_percent += compared(old, new, 0.05).counts["slower"] > 0
    assert alarms <= 5  # 2 expected at the stated 5 %; more than 5 has probability 1.4 %
    assert plain > 0.9 * trials, "rows each for itself would cry out nearly every time"
    assert at_5_percent == 0


def test_what_rows_stray_by_from_run_to_run_is_no_change() -> None:
    """Each row lies elsewhere in memory in the next process; within one run nothing tells."""
    random, alarms, found = np.random.default_rng(0), 0, []
    for _ in range(20):
        strayed = LATENCIES * np.exp(0.03 * random.standard_normal(COUNT))
        quiet = np.full(COUNT, 0.004)
        result = compared(measured(random, LATENCIES, quiet), measured(random, strayed, quiet), 0.05)
        alarms += result.counts["slower"] + result.counts["faster"] > 0
        found.append(result.scatter)
    assert alarms <= 3 and np.mean(found) == pytest.approx(0.03, rel=0.1)


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_what_few_rows_really_change_by_is_no_scatter(share: float) -> None:
    random, changed = np.random.default_rng(0), np.arange(COUNT) < share * COUNT
    for _ in range(10):
        new = measured(random, LATENCIES * np.where(changed, 1.3, 1.0), NOISE)
        assert compared(measured(random, LATENCIES, NOISE), new, 0.05).scatter < 0.01


@pytest.mark.parametrize("pace", [1.0, 0.8, 1.04])
def test_one_regression_of_20_percent_among_300_is_found(pace: float) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        place = int(random.integers(COUNT))
        slower = LATENCIES * pace * np.where(np.arange(COUNT) == place, 1.2, 1.0)
        noise = np.minimum(NOISE, 0.02)  # no row wider than a policy asks for
        result = compared(measured(random, LATENCIES, noise), measured(random, slower, noise), 0.05)
        assert [pair.key for pair in result.pairs if pair.verdict == "slower"] == [signature(place).key]
        assert result.objection is not None and result.objection.exit_code is ExitCode.REGRESSION
        assert signature(place).key in str(result.objection)
        assert result.factor.value == pytest.approx(pace, rel=0.01)
        assert ("as a whole" in str(result.objection)) == (pace == 0.8), "it is told where it matters"


def test_a_machine_that_is_slower_as_a_whole_is_no_regression_and_is_not_passed_over() -> None:
    random = np.random.default_rng(0)
    noise = np.full(COUNT, 0.004)
    old = measured(random, LATENCIES, noise)
    slow = compared(old, measured(random, 1.2 * LATENCIES, noise), 0.05)
    assert slow.counts["same"] == COUNT and slow.objection is not None
    assert slow.objection.exit_code is ExitCode.INCONCLUSIVE and "1.20 times" in str(slow.objection)
    assert compared(old, measured(random, 0.8 * LATENCIES, noise), 0.05).objection is None


TIMING = Timing(100_000, 99_800, 100_200, 99_000, 103_000, 0.01, 30)
SLOW = replace(TIMING, median_ns=120_000, ci_low_ns=119_800, ci_high_ns=120_200, p5_ns=118_000, p95_ns=125_000)
OTHERS = [replace(TIMING, median_ns=TIMING.median_ns + change) for change in range(-100, 101, 10)]


def beside(timing: Timing, others: Sequence[Timing] = OTHERS) -> list[ProfileRow]:
    """A row, the first one, amid others."""
    return rows_of([timing, *others])


def only(found: ProfileComparison) -> tuple[str, str | None]:
    (pair,) = (pair for pair in found.pairs if pair.key == signature(0).key)
    return pair.verdict, pair.reason


OLD = beside(TIMING, OTHERS[::-1])


def test_a_median_that_moved_without_its_fastest_runs_is_unclear() -> None:
    """A job beside that takes half of the core stretches most runs, and evenly."""
    assert only(compared(OLD, beside(SLOW))) == ("slower", None)
    busy = compared(OLD, beside(replace(SLOW, p5_ns=99_500)))
    assert only(busy)[0] == "unclear" and "something ran beside" in str(only(busy)[1])
    assert busy.objection is not None and busy.objection.exit_code is ExitCode.INCONCLUSIVE
    relieved = compared(beside(replace(SLOW, p5_ns=99_500)), OLD)
    assert only(relieved)[0] == "unclear" and relieved.objection is None


def test_what_is_degraded_regresses_not_but_is_unclear() -> None:
    new = beside(SLOW)
    new[0] = replace(new[0], status="degraded", reason="the sentinel was slow")
    found = compared(OLD, new)
    assert only(found) == ("unclear", "the sentinel was slow") and found.degraded == (signature(0).key,)
    assert found.objection is not None and found.objection.exit_code is ExitCode.INCONCLUSIVE
    assert "profile --again" in str(found.objection)


def test_few_samples_and_wide_intervals_are_unclear() -> None:
    assert only(compared(OLD, beside(replace(SLOW, samples=5)))) == ("unclear", "5 samples have no 95 % interval")
    wide = compared(OLD, beside(replace(TIMING, ci_high_ns=110_000)))
    assert only(wide) == ("unclear", "its interval is wider than the tolerance")
    little = compared(OLD, beside(replace(SLOW, median_ns=106_000, ci_low_ns=104_500, ci_high_ns=107_000)))
    assert only(little) == ("unclear", "its interval is too wide to be sure of its change")
    for found in (wide, little):
        assert found.objection is not None and found.objection.exit_code is ExitCode.INCONCLUSIVE


def test_what_no_longer_runs_is_a_regression_and_other_failures_are_listed() -> None:
    failed = ProfileRow(signature(0), None, "failed", "no tactic")
    broken = compared(OLD, [failed, *beside(TIMING)[1:]])
    assert [(row.key, row.reason) for row in broken.broken] == [(failed.signature.key, "no tactic")]
    assert broken.objection is not None and broken.objection.exit_code is ExitCode.REGRESSION
    assert "no tactic" in str(broken.objection)
    for new in (OLD[0], failed):
        mended = compared([failed, *OLD[1:]], [new, *beside(TIMING)[1:]])
        assert mended.objection is None and len(mended.incomparable) == 1


def test_rows_of_one_side_are_listed_and_do_not_matter() -> None:
    found = compared(OLD, [*OLD[3:], ProfileRow(signature(77), TIMING)])
    assert found.missing == tuple(signature(number).key for number in range(3)) and found.objection is None
    assert found.added == (signature(77).key,)


def test_simulated_rows_meet_no_others() -> None:
    new = [replace(row, simulated=True) for row in OLD]
    with pytest.raises(IncompatibleError, match="no operation in common that both have measured"):
        compared(OLD, new)
    found = compared(OLD, [*new[:4], *OLD[4:]])
    assert [row.reason for row in found.incomparable] == ["simulated in one of them"] * 4 and len(found.pairs) == 18
    with pytest.raises(IncompatibleError, match="simulated: False, here True"):
        compare_profiles(profile(OLD), profile(new, on(simulated=True)), 0.05, ("driver",))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"driver": "595"}, "--across driver"),
        ({"driver": "595", "runtime_version": "11.4"}, "--across driver --across runtime_version"),
        ({"driver": "595", "threads": 2}, "in the same way"),
        ({"name": "other"}, "in the same way"),
    ],
)
def test_keys_must_agree(change: dict[str, object], hint: str) -> None:
    with pytest.raises(IncompatibleError, match=hint) as caught:
        compare_profiles(profile(OLD), profile(OLD, on(**change)), 0.05)
    assert all(f"{LABELS.get(name, name)}: " in str(caught.value) for name in change)


def test_what_is_compared_across_is_said() -> None:
    newer = profile(OLD, on(driver="595", runtime_version="11.4"))
    with pytest.raises(IncompatibleError, match=r"runtime_version: 10\.16, here 11\.4\n"):
        compare_profiles(profile(OLD), newer, 0.05, ("driver",))
    found = compare_profiles(profile(OLD), newer, 0.05, ("driver", "runtime_version"))
    assert found.across == ("driver: 550.54, here 595", "runtime_version: 10.16, here 11.4")


def test_profiles_of_other_networks_are_not_compared() -> None:
    with pytest.raises(IncompatibleError, match="no operation in common"):
        compared(OLD, [ProfileRow(signature(77), TIMING)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clock=st.floats(300, 2000))
def test_clock_rates_are_told_where_both_know_them(clock: float) -> None:
    fast = [replace(row, clock_mhz=1545.0) for row in OLD]
    now = [replace(row, clock_mhz=clock) for row in beside(TIMING)]
    assert compared(fast, now).clocks_mhz == (1545.0, clock)
    assert compared(fast, beside(TIMING)).clocks_mhz is None


def test_latencies_of_centuries_are_compared() -> None:
    """Nobody measures them; a table that someone made up is no reason for a traceback."""
    longest = 2**63 - 1
    absurd = Timing(longest, 0, longest, -longest, longest, 0.0, 6)
    found = compared(OLD, beside(absurd))
    assert only(found)[0] == "unclear" and all(np.isfinite(pair.sure.interval).all() for pair in found.pairs)


def test_times_of_nothing_are_compared() -> None:
    nothing = Timing.of([0] * 30)
    assert set(verdicts(compared(rows_of([nothing] * 9), rows_of([replace(nothing, cv=0.1)] * 9))).values()) == {"same"}
