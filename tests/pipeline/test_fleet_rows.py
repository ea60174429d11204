"""A table that a fleet fills while its workers and its head are killed, beside that of a single worker."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import sleeping
from trt_layermerge.errors import ExitCode
from trt_layermerge.importance.table import ImportanceTable

ROOT = Path(__file__).parents[2]
ASSETS = Path(__file__).parent / "assets"
PATIENCE = 180.0
"""Seconds, on a machine that does other things; reached only if something hangs."""

CACHES = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
"""Where ONNX Runtime and matplotlib keep theirs as they are imported, with a fleet and without."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install ray, or the extra fleet"
)


class Desk:
    """A folder in which commands run, and the temporary folder that they have."""

    def __init__(self, folder: Path, temporary: Path) -> None:
        self.folder, self.temporary = folder, temporary
        sleeping.install(folder / "site")

    def start(self, command: str, name: str, *options: object, seconds: float = 0.0) -> subprocess.Popen[str]:
        """A command on a small network; what it leaves is told by ``name``."""
        own = ["--output", self.folder / name / "out", "--profiles", self.folder / name / "profiles"]
        given = [command, ASSETS / "model.py", *own, "--runtime", "sleeping", "--json", *options]
        return subprocess.Popen(
            [sys.executable, "-m", "trt_layermerge.cli.main", *map(str, given)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(self.folder / "site")]),
                "TMPDIR": str(self.temporary),
                "HOME": str(self.folder / "home"),
                "XDG_CACHE_HOME": CACHES,
                sleeping.SECONDS: str(seconds),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, name: str, *options: object) -> Any:
        """The JSON that a command prints."""
        with self.start(command, name, *options) as process:
            return printed(process)

    def profile(self, name: str) -> Path:
        return self.folder / name / "profiles" / "simulated-nothing" / "sleeping-1-fp32.jsonl"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="f") as short:  # Ray's sockets need a short path
        yield Desk(tmp_path, Path(short))
        left = [path.name for path in Path(short).iterdir() if path.name != ".ses"]  # ONNX Runtime's, kept on purpose
        assert not left, f"temporary files are left: {left}"
        written = [path.name for path in (tmp_path / "home").rglob("*") if not path.is_dir()]
        assert not written, f"something was written to the user's folder: {written}"


def printed(process: subprocess.Popen[str]) -> Any:
    """The JSON that a command prints in the end."""
    out, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return json.loads(out)


def rows_of(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:] if path.exists() else []


def titles(ancestor: int) -> dict[int, str]:
    """The command lines of a process and all below it."""
    parents, lines = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, IndexError):
            continue
    below, before = {ancestor}, set[int]()
    while below != before:
        before, below = below, below | {child for child, parent in parents.items() if parent in below}
    return {number: lines[number] for number in below if lines.get(number)}


def until(reached: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait for something while a command runs."""
    end = time.monotonic() + PATIENCE
    while not (found := reached()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.02)
    return found


def one_of(process: subprocess.Popen[str], title: str) -> int:
    return int(until(lambda: [number for number, line in titles(process.pid).items() if title in line], process)[0])


def test_workers_and_head_are_killed_and_the_table_is_a_single_worker_s(desk: Desk) -> None:
    table = desk.profile("fleet")
    with (
        desk.start("profile", "single") as single,
        desk.start("profile", "fleet", "--fleet", "local:2", seconds=0.03) as command,
    ):
        until(lambda: len(rows_of(table)) >= 2, command)
        started = titles(command.pid)
        os.kill(one_of(command, "ray::Worker.measure"), signal.SIGKILL)
        before = len(rows_of(table))
        until(lambda: len(rows_of(table)) > before, command)
        started |= titles(command.pid)
        os.kill(one_of(command, "gcs_server"), signal.SIGKILL)
        _, said = command.communicate(timeout=PATIENCE)
        whole = printed(single)
    expected = desk.profile("single").read_bytes()
    assert command.returncode == ExitCode.NOT_AVAILABLE, said
    assert "was lost" in said and "measured again" in said
    assert said.count("error:") == 1 and "the head of the fleet" in said and "Traceback" not in said
    assert any("ray::" in line for line in started.values())
    left = {one: line for one in started if "ray" in (line := titles(one).get(one, ""))}
    assert not left, "processes are left"
    kept = rows_of(table)
    assert 2 < len(kept) < whole["rows"] and set(kept) < set(expected.decode().splitlines())
    found = desk.run("profile", "fleet", "--fleet", "local:2")
    assert found["measured"] == whole["rows"] - len(kept), "nothing twice, nothing lost"
    assert table.read_bytes() == expected


def test_importance_of_a_fleet_is_that_of_one_machine(desk: Desk) -> None:
    data = ["--task", ASSETS / "task.py", "--calibration", 64, "--held-out", 64, "--all"]
    small = [*data, "--max-layers", 2, "--max-kernel", 5, "--cpu-threads", 1]
    tables = []
    with desk.start("importance", "single", *small) as single:
        ends = desk.run("importance", "fleet", *small, "--fleet", "local:2")
        for found in (printed(single), ends):
            tables.append({row.choice: row for row in ImportanceTable.read(Path(found["table"]))})
            assert len(tables[-1]) == found["rows"] > 5
    alone, shared = tables
    assert alone.keys() == shared.keys()
    for choice, row in alone.items():
        assert shared[choice].loss_after == row.loss_after and shared[choice].unexplained == row.unexplained
