"""No process that we start outlives us, and none of our temporary files does, however we end."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import trt_layermerge
from trt_layermerge.cli.main import INTERRUPTED
from trt_layermerge.testing.runtimes import small_model

HANGS = """
import os, time
from pathlib import Path
__version__ = "1.7.1"
def hang(*_):
    Path(os.environ["HANGING"]).write_text(str(os.getpid()))
    time.sleep(600)
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    hang()
"""
"""A library that hangs once it is used, and a function that does."""

BUILDS = (
    "import sys; from trt_layermerge.cli.main import main\n"
    "main(['build', sys.argv[1], '--runtime', 'tensorrt-rtx', '--target', 'sm75', '--output', sys.argv[2]])\n"
)
PROBES = """
import hanging, sys
from pathlib import Path
from trt_layermerge.probe import probe
probe(hanging.hang, Path(sys.argv[1]))
"""
IGNORES = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""As shells do for what a script puts in the background."""

Started = Callable[[str], tuple[subprocess.Popen[str], int]]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    """Runs a script until what it has started hangs; its process, and the number of that one."""
    site, hanging = tmp_path / "site", tmp_path / "hanging"
    for folder in (site, tmp_path / "temporary"):
        folder.mkdir()
    for name in ("hanging", "tensorrt_rtx"):
        (site / f"{name}.py").write_text(HANGS)
    onnx.save(small_model(), tmp_path / "small.onnx")
    paths = os.pathsep.join([str(site), str(Path(trt_layermerge.__file__).parents[1])])
    given = {"PYTHONPATH": paths, "HANGING": str(hanging), "TMPDIR": str(tmp_path / "temporary")}

    def start(script: str) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "small.onnx"), str(tmp_path / "out" / "engine")],
            env={**os.environ, **given},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6000):
            if hanging.exists() and (said := hanging.read_text()):
                return process, int(said)
            if process.poll() is not None:
                break
            time.sleep(0.02)
        process.kill()
        raise AssertionError(process.communicate()[1])

    return start


def _left(temporary: Path) -> list[str]:
    """What we have left; ``.ses`` is of ONNX Runtime, which keeps it on purpose."""
    return [path.name for path in temporary.iterdir() if path.name != ".ses"]


def _ends(process: int) -> bool:
    """Whether a process is gone, or soon will be."""
    for _ in range(1500):
        try:
            os.kill(process, 0)
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("script", [PROBES, BUILDS], ids=["probe", "build"])
def test_what_we_have_started_is_gone_when_we_are_killed(started: Started, script: str) -> None:
    process, child = started(script)
    process.kill()
    process.communicate()
    assert _ends(child)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_is_told_to_end_takes_all_with_it(started: Started, tmp_path: Path, number: int) -> None:
    process, child = started(BUILDS)
    assert _left(tmp_path / "temporary"), "the build works in a temporary folder"
    process.send_signal(number)
    _, said = process.communicate()
    assert process.returncode == INTERRUPTED and "error: interrupted" in said and "Traceback" not in said
    assert _ends(child) and not _left(tmp_path / "temporary")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_in_the_background_of_a_script_too(started: Started, tmp_path: Path) -> None:
    process, child = started(IGNORES + BUILDS)
    process.send_signal(signal.SIGINT)  # which is ignored, and the next one is not
    process.terminate()
    process.communicate()
    assert process.returncode == INTERRUPTED and _ends(child) and not _left(tmp_path / "temporary")


def test_all_processes_are_started_as_children() -> None:
    """All but git, which ends by itself, and the driver of a fleet: it cleans up behind a command that was killed."""
    starts = {"Popen", "run", "call", "check_call", "check_output", "spawnv", "fork", "system", "popen"}
    found: dict[str, set[str]] = {}
    for path in Path(trt_layermerge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in starts
                and ast.unparse(node.value) in ("subprocess", "os")
            ):
                found.setdefault(path.name, set()).add(path.read_text())
    told = {name for name, (text, *_) in found.items() if "child_command(" in text and "child_environment()" in text}
    assert found.keys() - told == {"manifest.py", "fleet.py"} and len(told) == 3
