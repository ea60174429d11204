"""Profiles as CI is told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.cli.test_compare import on, write_profile
from trt_layermerge.ci.measured import report_of_profile
from trt_layermerge.latency.profile import Profile, ProfileRow


def test_rows_that_are_not_sure_are_skipped_and_come_first(tmp_path: Path) -> None:
    profile = Profile.read(write_profile(tmp_path / "p.jsonl", count=5))
    first, second, *_ = rows = list(profile)
    profile.add(replace(first, status="degraded", reason="noisy"))
    profile.add(ProfileRow(second.signature, None, "failed", "no tactic"))
    unmeasured = replace(rows[0].signature, batch=99)
    wanted = [*(row.signature for row in rows), unmeasured, unmeasured]
    found = report_of_profile(profile, wanted, ["a note"])
    assert [case.outcome for case in found.cases] == ["skipped"] * 3 + ["passed"] * 3
    assert {case.verdict: case.reason for case in found.cases[:3]} == {
        "degraded": "noisy",
        "failed": "no tactic",
        "missing": "not measured yet",
    }
    assert "3 ok" in found.title and found.notes[-1] == "a note" and found.count("failed") == 0
    measure = found.cases[-1].measure
    assert measure is not None and measure.spread == 100 / 1e6 and 0.1 <= measure.value < 0.2


def test_other_rows_of_the_table_are_not_told_and_simulated_is(tmp_path: Path) -> None:
    profile = Profile.read(write_profile(tmp_path / "p.jsonl", key=on(simulated=True)))
    found = report_of_profile(profile, [next(iter(profile)).signature])
    assert len(found.cases) == 1 and found.notes[0].startswith("SIMULATED")
