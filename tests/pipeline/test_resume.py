"""A job that is killed with SIGKILL seven times ends as one that never was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.training.checkpoint import Checkpoint

SCRIPT = Path(__file__).parent / "assets" / "killed.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def attempts(folder: Path) -> list[tuple[str, int, int, dict[str, str]]]:
    ran = subprocess.run([sys.executable, str(SCRIPT), str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found: list[tuple[str, int, int, dict[str, str]]] = json.loads(ran.stdout)
    return found


def test_every_kill_happened_and_the_last_attempt_finished(attempts: Any) -> None:
    assert [code for _, _, code, _ in attempts] == [-signal.SIGKILL] * (len(attempts) - 1) + [0]
    assert attempts[1][3].keys() != {} and "result.json" in attempts[-1][3]


def test_rows_are_kept_byte_for_byte(attempts: Any) -> None:
    """A profile that is filled is put in order, once: its header stays the first line, and all rows stay."""
    for name in {name for *_, left in attempts for name in left if name.endswith(".jsonl")}:
        for (stage, _, _, before), (*_, after) in pairwise(attempts):
            earlier, later = (bytes.fromhex(left.get(name, "")) for left in (before, after))
            if stage == "profile" and name.startswith("onnxruntime"):
                assert later.startswith(earlier[: earlier.find(b"\n") + 1])
                assert Counter(earlier.splitlines()) <= Counter(later.splitlines())
            else:
                assert later.startswith(earlier)


def test_the_rows_before_a_kill_are_on_disk(attempts: Any) -> None:
    lines = {
        (stage, done): bytes.fromhex(content).count(b"\n")
        for stage, done, _, left in attempts
        for name, content in left.items()
        if name.startswith("onnxruntime" if stage == "profile" else stage)
    }
    assert lines["profile", 3] == 1 + 3 and lines["importance", 2] == 1 + 2


def test_what_was_decided_stays_decided(attempts: Any) -> None:
    for name in ("plan.json", "baseline.json"):
        contents = {left[name] for *_, left in attempts if name in left}
        assert len(contents) == 1
    starts = {content for *_, left in attempts for name, content in left.items() if ".start." in name}
    assert len(starts) == 1


def test_the_weights_are_bit_for_bit_those_of_a_run_that_was_never_killed(
    attempts: Any, folder: Path, tmp_path: Path, quick_job: Any, recorder: Any
) -> None:
    for part in ("out", "profiles"):
        shutil.copytree(folder / part, tmp_path / part, ignore=shutil.ignore_patterns("finetune-*"))
    job = quick_job(tmp_path)
    whole_job(open_session(job), recorder)
    assert ("fine-tune", 0, 16) in recorder.steps
    (killed,), (whole,) = ((place / "out").glob("finetune-*.checkpoint.safetensors") for place in (folder, tmp_path))
    assert killed.name == whole.name
    theirs, ours = Checkpoint.read(killed), Checkpoint.read(whole)
    assert replace(theirs, weights={}, momenta={}) == replace(ours, weights={}, momenta={})
    assert theirs.weights.keys() == ours.weights.keys()
    assert all(torch.equal(theirs.weights[name], ours.weights[name]) for name in ours.weights)
