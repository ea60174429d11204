"""Files that never end, pipes that nobody writes to, tasks that end the process: no command waits, none succeeds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.refusal import refused

PIPES: dict[str, tuple[str, list[object], int]] = {
    "configuration": ("job.toml", ["compress", "model.py", "--config", "PIPE"], 2),
    "recipe": ("r.toml", ["compress", "model.py", "--recipe", "PIPE"], 2),
    "manifest": ("m.json", ["verify", "--manifest", "PIPE"], 3),
    "public key": ("k.pem", ["verify", "--manifest", "m.json", "--signed-by", "PIPE"], 3),
    "profile": ("p.jsonl", ["compare", "PIPE", "PIPE"], 3),
    "table": ("l.csv", ["solve", "--latency", "PIPE", "--importance", "PIPE"], 3),
    "model": ("m.py", ["inspect", "PIPE"], 3),
    "ONNX": ("m.onnx", ["inspect", "PIPE"], 3),
    "ONNX to build from": ("m.onnx", ["build", "PIPE"], 3),
    "engine": ("m.engine", ["inspect", "PIPE"], 3),
    "report": ("r.json", ["doctor", "--replay", "PIPE"], 3),
    "weights": ("w.pth", ["compress", "FOLDER/model.py", "--weights", "PIPE", "--task", "FOLDER/task.py"], 3),
    "task": ("t.py", ["compress", "FOLDER/model.py", "--task", "PIPE"], 3),
    "array": ("a.npy", ["compress", "FOLDER/model.py", "--task", "PIPE"], 3),
}


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(run: Any, desk: Any, name: str) -> None:
    file, arguments, code = PIPES[name]
    pipe = desk.folder / "pipes" / file
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    given = [str(one).replace("PIPE", str(pipe)).replace("FOLDER", str(desk.folder)) for one in arguments]
    signal.alarm(100)  # which ends the tests, as a CI job that waits for ever would
    try:
        refused(run(*given), code)
    finally:
        signal.alarm(0)


def test_a_file_without_an_end_is_not_read_to_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").symlink_to("/dev/zero")
    for command in ("inspect", "build"):
        refused(run(command, tmp_path / "m.onnx"), 3, "m.onnx")


ENDS = {
    "while it loads": "import os\nos._exit(0)\n",
    "in its function": "import os\ndef task():\n    os.execv('/bin/true', ['true'])\n",
    "as Python ends": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef task():\n    return 3\n",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_task_cannot_end_the_command_as_a_success(desk: Any, name: str) -> None:
    """In a process of its own, for what it does would end the tests."""
    (desk.folder / "task.py").write_text(ENDS[name])
    command = [sys.executable, "-m", "trt_layermerge.cli.main", "compress", *map(str, desk.job), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 3 and ran.stdout == "", ran
    assert len(re.findall("^error: ", ran.stderr, re.M)) == 1 and "Traceback" not in ran.stderr


def test_a_task_that_closes_our_streams_and_makes_warnings_errors_hides_no_error(desk: Any) -> None:
    hides = "import sys, warnings\nsys.stdout.close()\nsys.stderr.close()\nwarnings.simplefilter('error')\n"
    (desk.folder / "task.py").write_text(f"{hides}def task():\n    return 3\n")
    command = [sys.executable, "-m", "trt_layermerge.cli.main", "compress", *map(str, desk.job), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 3 and ran.stderr.startswith("error: ") and "is no task" in ran.stderr, ran


def test_a_late_exit_that_no_gate_sees_is_no_success(run: Any, desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("trt_layermerge.pipeline.compression.export_onnx", leave)
    refused(run("compress", *desk.job, "--runtime", "estimate:rtx-2080-ti", "--json"), 3, "SystemExit: 0")
