"""What is written of the GPU tests, on parts that need no GPU."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gpu import __main__ as runner
from tests.gpu.parts import PARTS, Part

TESTS = """
import os, pytest
pytestmark = pytest.mark.gpu("here")
def test_that_passes(record_property): record_property("figure", 1.5)
def test_that_fails(): assert False, "because"
def test_that_is_skipped(): pytest.skip("not now")
"""


@dataclass(frozen=True)
class Here(Part):
    """A part with tests of its own."""

    place: Path = Path()

    @property
    def file(self) -> Path:
        return self.place


def part(folder: Path, text: str, lacking: str | None = None) -> Here:
    (folder / "test_here.py").write_text(text)
    return Here("here", "nothing", lambda: lacking, folder / "test_here.py")


def run(monkeypatch: pytest.MonkeyPatch, target: Path, *parts: Part) -> tuple[int, dict[str, dict]]:
    monkeypatch.setattr(runner, "PARTS", parts)
    monkeypatch.setattr(sys, "argv", ["tests.gpu", str(target)])
    code = runner.main()
    return code, json.loads(target.read_text())["parts"]


def test_every_part_has_its_tests_and_its_mark() -> None:
    for one in PARTS:
        assert f'pytest.mark.gpu("{one.name}")' in one.file.read_text(), one.name


def test_outcomes_and_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, parts = run(monkeypatch, tmp_path / "evidence" / "it.json", part(tmp_path, TESTS))
    tests = {test["name"].partition("::")[2]: test for test in parts["here"]["tests"]}
    assert {name: test["outcome"] for name, test in tests.items()} == {
        "test_that_passes": "passed", "test_that_fails": "failed", "test_that_is_skipped": "skipped"
    }  # fmt: skip
    assert "because" in tests["test_that_fails"]["why"] and "not now" in tests["test_that_is_skipped"]["why"]
    assert parts["here"]["figures"] == {"figure": 1.5}
    assert code == 1 and parts["here"]["failed"] == 1 and parts["here"]["crashed"] is None


def test_a_part_that_crashes_is_evidence_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TESTS.replace('assert False, "because"', "os.abort()")
    code, parts = run(monkeypatch, tmp_path / "it.json", part(tmp_path, text))
    assert code == 1 and "-6" in parts["here"]["crashed"]
    assert [test["outcome"] for test in parts["here"]["tests"]] == ["passed", "unfinished"]


def test_what_cannot_run_says_why_and_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, parts = run(monkeypatch, tmp_path / "it.json", part(tmp_path, TESTS, "no GPU"))
    assert code == 0 and parts["here"] == {"needs": "nothing", "skipped": "no GPU"}


def test_a_package_that_is_missing_is_a_reason() -> None:
    def look() -> None:
        import no_such_package  # noqa: F401

    assert Part("it", "", look).lacking() == "no_such_package is not installed"
