"""A sample of ``make test-crash``, in a process of its own; and two commands at once."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("crash")
    command = [sys.executable, "-m", "tests.crash.sample", str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_what_was_killed_ends_as_what_never_was(sampled: dict[str, Any]) -> None:
    assert sampled["faults"] == []
    assert sampled["killed"] == sampled["tried"] > 8


def test_a_failing_disk_is_told_and_survived(sampled: dict[str, Any]) -> None:
    assert sampled["failed"] > 2 and sampled["failures"] == []


def test_of_two_on_one_output_one_is_told_who_is_there(sampled: dict[str, Any]) -> None:
    assert sampled["refused_on_one_output"] == 3
    assert re.search(r"error: another process, \d+ \(.*\), is at work in", sampled["said_on_one_output"])


def test_two_on_one_profile_take_turns(sampled: dict[str, Any]) -> None:
    assert sampled["waits_for_one_profile"]
    assert sampled["codes_on_one_profile"] == [0, 0, 0] and sampled["same_on_one_profile"]


def test_a_clock_that_goes_backwards_changes_nothing(sampled: dict[str, Any]) -> None:
    assert sampled["same_with_a_clock_going_backwards"]
