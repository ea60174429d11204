"""Comparisons as CI is told of them: a case fails where, and only where, the command does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_compare import COUNT, on, write_delivery, write_profile
from trt_layermerge.ci.case import CiReport
from trt_layermerge.ci.compared import report_of_comparison
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.regression.comparable import compare_files


def report(folder: Path, **new: Any) -> CiReport:
    then, now = write_profile(folder / "then.jsonl"), write_profile(folder / "now.jsonl", **new)
    return report_of_comparison(compare_files(then, now, 0.05, None, ()))


def outcomes(found: CiReport) -> dict[str, int]:
    return {name: found.count(name) for name in ("passed", "failed", "skipped")}


def test_equal_profiles_pass(tmp_path: Path) -> None:
    found = report(tmp_path, pace=1.001)
    assert outcomes(found) == {"passed": COUNT, "failed": 0, "skipped": 0}
    assert {case.verdict for case in found.cases} == {"same"} and "20 same" in found.title
    assert all(case.measure is not None and case.measure.unit == "ms" for case in found.cases)
    assert "." not in found.suite.removeprefix("compare.") and "rtx-2080-ti" in found.suite


def test_a_slower_row_fails_first_and_says_by_how_much(tmp_path: Path) -> None:
    found = report(tmp_path, slow=1.2, width=120)
    assert outcomes(found) == {"passed": COUNT - 1, "failed": 1, "skipped": 0}
    first = found.cases[0]
    assert first.outcome == "failed" and first.reason is not None and "1.200 times as long" in first.reason


def test_what_cannot_be_told_is_skipped_with_its_reason(tmp_path: Path) -> None:
    found = report(tmp_path, width=9000)
    assert outcomes(found) == {"passed": 0, "failed": 0, "skipped": COUNT}
    assert all(case.reason is not None and "tolerance" in case.reason for case in found.cases)


def test_a_slower_machine_is_a_case_of_its_own(tmp_path: Path) -> None:
    found = report(tmp_path, pace=1.3)
    assert [case.name for case in found.cases if case.outcome == "skipped"] == ["the machine as a whole"]


def test_a_row_that_newly_fails_is_a_failure(tmp_path: Path) -> None:
    then, path = write_profile(tmp_path / "then.jsonl"), write_profile(tmp_path / "now.jsonl")
    now = Profile.read(path)
    now.add(ProfileRow(next(iter(now)).signature, None, "failed", "no tactic"))
    found = report_of_comparison(compare_files(then, path, 0.05, None, ()))
    assert outcomes(found)["failed"] == 1 and found.cases[0].reason == "no tactic"
    mended = report_of_comparison(compare_files(path, then, 0.05, None, ()))
    assert outcomes(mended) == {"passed": COUNT - 1, "failed": 0, "skipped": 1}


def test_simulated_is_said(tmp_path: Path) -> None:
    found = report_of_comparison(
        compare_files(*(write_profile(tmp_path / n, key=on(simulated=True)) for n in "ab"), 0.05, None, ())
    )
    assert found.notes[0].startswith("SIMULATED")


@pytest.mark.parametrize(
    ("new", "tolerance", "expected"),
    [
        ({}, None, ["passed"]),
        ({"slower": 1.1}, None, ["failed"]),
        ({"slower": 1.1, "width": 0.1}, None, ["skipped"]),
        ({"compressed": 0.91}, 1.0, ["passed", "failed"]),
        ({"compressed": 0.925}, 1.0, ["passed", "passed"]),
    ],
)
def test_deliveries(tmp_path: Path, new: dict[str, Any], tolerance: float | None, expected: list[str]) -> None:
    then, now = write_delivery(tmp_path / "then.json"), write_delivery(tmp_path / "now.json", **new)
    comparison = compare_files(then, now, 0.05, tolerance, ())
    found = report_of_comparison(comparison)
    assert [case.outcome for case in found.cases] == [*expected, "passed", "passed"]
    assert [case.measure is not None for case in found.cases] == [*(False for _ in expected), True, True]
    assert ("failed" in expected) == (comparison.objection is not None and comparison.objection.exit_code == 7)
