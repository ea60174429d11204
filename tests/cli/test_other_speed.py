"""A job whose profile and whose original are timed while a GPU is not equally fast, on a double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Desk, _desk, _run
from tests.doubles.fixtures import Tell, replaced


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[tuple[Desk, Tell]]:
    """What a GPU is told to be like, and a profile that was filled when a run took 1 ms, whatever it computes."""
    with replaced(tmp_path) as tell:
        tell(run_us=1000)
        desk = _desk(tmp_path)
        assert _run("profile", *desk.stage, "--runtime", "tensorrt").code == 0
        yield desk, tell


def test_a_gpu_that_is_slower_now_is_told_and_reckoned_with(profiled: Any) -> None:
    desk, tell = profiled
    tell(run_us=3000)
    ran = _run("compress", *desk.job, "--runtime", "tensorrt", "--json")
    assert "takes 3.0 times as long now as when profile" in ran.err and "3 ms now, is counted as 1 ms" in ran.err
    plan = json.loads((desk.folder / "out" / "plan.json").read_text())
    assert plan["original_ns"] == pytest.approx(1_000_000, rel=0.01)


def test_a_gpu_that_was_slower_is_refused(profiled: Any) -> None:
    desk, tell = profiled
    tell(run_us=300)
    ran = _run("compress", *desk.job, "--runtime", "tensorrt")
    assert ran.code == 8 and "was filled while the machine was slower" in ran.err and "--profiles" in ran.err
    assert not (desk.folder / "out" / "plan.json").exists()
