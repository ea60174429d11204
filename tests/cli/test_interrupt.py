"""Ctrl-C in the middle of a job, as a terminal sends it; and the same command after it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trt_layermerge.cli.main import INTERRUPTED

STARTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs us in the background has it ignored
from trt_layermerge.cli.main import main
main(sys.argv[1:])
"""


def test_an_interrupted_job_says_how_to_go_on_and_does(run: Any, desk: Any) -> None:
    rows = desk.folder / "out" / "importance.jsonl"
    arguments = ["importance", *map(str, desk.stage), "--estimator", "finetune", "--tuning-steps", "40"]
    child = subprocess.Popen(
        [sys.executable, "-c", STARTED, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 300
        while not (rows.exists() and len(_lines(rows)) > 1) and child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == INTERRUPTED, told
    command = told.splitlines()[-1].strip()
    assert "error: interrupted; the same command goes on where it stopped:\n" in told and "Traceback" not in told
    assert shlex.split(command) == ["trt-layermerge", *arguments]
    kept = _lines(rows)
    assert run(*shlex.split(command)[1:]).code == 0
    assert _lines(rows)[: len(kept) - 1] == kept[:-1] and len(_lines(rows)) > len(kept), "it went on"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
