"""A sample of ``make test-hostile``, in a process of its own; and every kind of file that once ended in a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.trying import CASES

ROOT = Path(__file__).parents[2]

FOUND = (
    *("onnx: a bomb of functions", "onnx: input of 4611686018427387904 along 2", "onnx: input of -1 along 2"),
    *("onnx: weights elsewhere, of a negative length", "onnx: weights elsewhere, of a huge offset"),
    *("onnx: weights of type 0", "onnx: weights of 4611686018427387904 along 0", "onnx: too few bytes"),
    *("onnx: a huge version", "onnx: tensor named 'class'", "onnx: tensor named '[red]x[/red]'", "onnx: no inputs"),
    *("configuration with [[[[[[ x5000", "configuration with 999999 x5000", "importance table with 999999 x5000"),
    *("pth of int64", "pth on meta", "ends in task: os._exit(0)", "ends in held_out_batches: sys.exit()"),
)
"""What once ended in another way."""

OTHERS = (
    *("latencies with true", "latencies that is a device", "profile in UTF-16", "profile with NaN"),
    *("profile of a merge with 1e999", "manifest that is a pipe", "recipe with 999999 x5000", "safetensors none"),
    *("report of the doctor cut off", "ends in import: raise SystemExit(0)", "ends in task: raise Odd"),
)
"""One or two of each other kind that is refused before a job begins, which takes a tenth of a second."""


def test_a_sample_ends_in_one_message_or_in_a_result(tmp_path: Path) -> None:
    code = (
        "import os, sys, json; from pathlib import Path; from tests.hostile.trying import campaign; "
        "bad = campaign(Path(sys.argv[1]), json.loads(sys.argv[2])); "
        "sys.stdout.flush(); os._exit(bad > 0)"  # taking all of it down would take seconds
    )
    command = [sys.executable, "-c", code, str(tmp_path / "hostile"), json.dumps([*FOUND, *OTHERS])]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert f"{len(FOUND) + len(OTHERS)} hostile inputs, 0 of them" in ran.stdout


@pytest.mark.parametrize(
    "kind", ["ends in", "mode in", "batch of", "onnx", "pth", "safetensors", "manifest", "profile"]
)
def test_there_are_many_of_each_kind(kind: str) -> None:
    assert sum(name.startswith(kind) for name in CASES) > 15
