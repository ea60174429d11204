"""Runs long commands, kills them, runs them again: what they leave is, byte for byte, what an uninterrupted run leaves.

Every run is a fork of this process, which has imported everything. It is killed with SIGKILL at one of its write
points, which are all openings for writing, renames, removals, new folders and fsyncs below its folder; before an fsync
the file may be torn as well, as a power cut does. Or it is killed at a random moment. A write may fail as well: the
disk is full. Latencies are estimates, which never differ, and the seconds in importance tables stand still; so there
are no timings to be left aside.

What came of each is a line in a file of the folder, and a campaign that was stopped goes on behind it.

Usage: ``python -m tests.crash.killing FOLDER [--random N] [--only COMMAND] [--rounds N]``
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import onnx

from tests.crash.remembered import remember
from trt_layermerge.cli.commands import build
from trt_layermerge.cli.main import main
from trt_layermerge.errors import ExitCode
from trt_layermerge.importance import choice_training, gate_training, narrowed_rows, oneshot
from trt_layermerge.testing.runtimes import small_model

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"
_TASK: list[object] = ["--task", ASSETS / "task.py", "--runtime", "estimate:rtx-2080-ti"]
_SMALL: list[object] = ["--max-layers", 2, "--max-kernel", 5, "--calibration", 64, "--held-out", 64, "--cpu-threads", 1]
_TRAINED: list[object] = ["--fit-samples", 64, "--epochs", 1, "--budget", 0.9]


def _stage(*arguments: object, model: str = "model.py") -> Callable[[Path], list[object]]:
    name, *others = arguments
    return lambda folder: [
        *(name, ASSETS / model, *_TASK, *_SMALL, "--output", folder / "out", "--profiles", folder / "profiles"),
        *others,
    ]


def _built(folder: Path) -> list[object]:
    onnx.save(small_model(), folder / "small.onnx")
    return ["build", folder / "small.onnx", "--output", folder / "out" / "small.engine.onnx"]


COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "profile": lambda folder: [one for one in _stage("profile")(folder) if one not in ("--cpu-threads", 1)],
    "importance": _stage("importance", "--all"),
    "importance, gates": _stage("importance", "--method", "depth", "--estimator", "gates", "--gates-epochs", 2),
    "importance, finetune": _stage("importance", "--estimator", "finetune", "--tuning-steps", 2),
    "build": _built,
    "compress": _stage("compress", *_TRAINED),
    "compress --explore": _stage("compress", *_TRAINED, "--explore"),
    "compress, fp16": _stage("compress", *_TRAINED, "--precision", "fp16"),
    "compress --refine": _stage("compress", *_TRAINED, "--refine", 2),
    "compress, widths": _stage("compress", *_TRAINED, "--method", "joint", "--widths", "1.0,0.5", model="wide.py"),
}
"""Commands that write several files, or one for long, the quick ones first: their arguments for a folder."""


@dataclass(frozen=True)
class AtWrite:
    """A kill before a write point, or a failure of it.

    Attributes:
        point: Its number, from 1.
        torn: Whether some of the bytes of the file that is to be fsynced are lost before.
        error: What the system says instead of doing it, for no kill but a full disk, or one that fails.
    """

    point: int
    torn: bool = False
    error: int | None = None


@dataclass(frozen=True)
class After:
    """A kill after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class SmallFiles:
    """No kill, but a limit on the size of files in bytes."""

    size: int


Trouble = AtWrite | After | SmallFiles | None


class _Points:
    """Notes write points, an ``s`` for each fsync and a ``w`` for the others, and kills the process at one."""

    def __init__(self, folder: Path, kill: AtWrite | None) -> None:
        self.folder, self.kill, self.seen = str(folder), kill, ""
        self._fsync = os.fsync
        os.fsync = self.fsync
        sys.addaudithook(self.hear)

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if (
            event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        ) or event in ("os.rename", "os.remove", "os.mkdir", "os.truncate"):
            self.at(args[0])

    def at(self, path: object, kind: str = "w") -> None:
        if isinstance(path, int) or str(path).startswith(self.folder):
            self.seen += kind
            if self.kill is not None and len(self.seen) == self.kill.point:
                if self.kill.error is not None:
                    raise OSError(self.kill.error, os.strerror(self.kill.error))
                os.kill(os.getpid(), signal.SIGKILL)

    def fsync(self, handle: int) -> None:
        kill = self.kill
        if kill is not None and kill.torn and len(self.seen) + 1 == kill.point:
            with contextlib.suppress(OSError):  # a folder
                size = os.fstat(handle).st_size
                os.ftruncate(handle, max(0, size - 1 - Random(kill.point).randrange(min(size, 300) + 1)))
        self.at(handle, "s")
        self._fsync(handle)


def run(command: str, folder: Path, kill: Trouble = None) -> tuple[int, str]:
    """Run a command in a fork; its exit code, which is ``-SIGKILL`` where it was killed, and its write points.

    The points are told of runs that come to their end.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        code = 70
        with contextlib.suppress(BaseException):
            code = _run(command, folder, kill, writing)
        os._exit(code)
    os.close(writing)
    if isinstance(kill, After):
        timer = threading.Timer(kill.seconds, lambda: os.kill(child, signal.SIGKILL))
        timer.start()
    with open(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if isinstance(kill, After):
        timer.cancel()
    return code, said.decode()


def _run(command: str, folder: Path, kill: Trouble, writing: int) -> int:
    if isinstance(kill, SmallFiles):
        resource.setrlimit(resource.RLIMIT_FSIZE, (kill.size, kill.size))
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    arguments = [str(one) for one in COMMANDS[command](folder)]
    points = _Points(folder, kill if isinstance(kill, AtWrite) else None)
    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    os.write(writing, points.seen.encode())
    return code


def left(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, those that nobody should have left too."""
    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def content(path: Path) -> bytes:
    """What a file holds; the order of what safetensors says in a header differs from process to process."""
    data = path.read_bytes()
    if path.suffix != ".safetensors" or path.name.startswith("."):
        return data
    size = int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True).encode() + data[8 + size :]


def fresh(folder: Path) -> Path:
    """The folder, empty: always the same one, for files name it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def warm(folder: Path) -> None:
    """Do in this process what takes seconds the first time, but no training: torch's threads for it survive no fork."""
    for module in (oneshot, narrowed_rows, gate_training, choice_training):
        module.time = SimpleNamespace(monotonic=lambda: 0.0)  # type: ignore[attr-defined]
    build.probe = lambda function, path: function(str(path))  # a process that would import everything for each kill
    remember(folder.with_name("remembered"))
    os.chdir(fresh(folder).parent)  # manifests have the state of git, which may change
    with (
        contextlib.suppress(SystemExit),
        contextlib.redirect_stdout(StringIO()),
        contextlib.redirect_stderr(StringIO()),
    ):
        main([str(one) for one in COMMANDS["importance"](folder)])


@dataclass
class Tally:
    """What came of the kills of one command."""

    points: str
    seconds: float
    tried: int = 0
    killed: int = 0
    failures: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, kills: list[Trouble], killed: int, fault: str | None) -> None:
        """What came of kills and the run that finished."""
        failing = sum(isinstance(one, SmallFiles) or getattr(one, "error", None) is not None for one in kills)
        self.tried, self.killed = self.tried + len(kills) - failing, self.killed + killed
        self.failures += failing
        if fault is not None:
            self.wrong.append(fault)


def survive(command: str, folder: Path, kills: list[Trouble], whole: dict[str, bytes]) -> tuple[int, str | None]:
    """Run and kill, as often as there are kills, then let it finish; how many kills hit, and what is wrong then."""
    fresh(folder)
    hit = 0
    for kill in kills:
        code, _ = run(command, folder, kill)
        if fault := _fault(kill, code, folder):
            return hit, f"{kills}: {fault}"
        hit += code == -signal.SIGKILL
    code, _ = run(command, folder)
    if code:
        return hit, f"{kills}: exit code {code}: {folder.with_suffix('.log').read_text()[-500:]}"
    found = left(folder)
    differing = sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name))
    return hit, f"{kills}: differs in {', '.join(differing)}" if differing else None


def _fault(kill: Trouble, code: int, folder: Path) -> str | None:
    """What is wrong with how a run in trouble ended: it is killed, or says in one line what the system refused."""
    said = folder.with_suffix(".log").read_text(errors="replace")
    if code == 0 or (code == -signal.SIGKILL and (isinstance(kill, After) or getattr(kill, "error", 0) is None)):
        return None
    if code == int(ExitCode.BAD_INPUT) and "Traceback" not in said and "\nerror: " in f"\n{said}":
        return None
    return f"exit code {code}: {said[-500:]}"


def reference(command: str, folder: Path) -> tuple[dict[str, bytes], Tally]:
    """What an uninterrupted run leaves.

    Raises:
        RuntimeError: It fails.
    """
    begin = time.monotonic()
    code, points = run(command, fresh(folder))
    if code:
        raise RuntimeError(f"{command}: exit code {code}: {folder.with_suffix('.log').read_text()}")
    return left(folder), Tally(points, time.monotonic() - begin)


Chains = list[list[Trouble]]


def rounds(points: str, seconds: float, random: int, seed: int) -> Iterator[Chains]:
    """Kills at each write point; torn files at each fsync, what goes on being killed as well; kills at random moments;
    failures at each write point."""
    rng = Random(seed)
    yield [[AtWrite(point)] for point, _ in enumerate(points, 1)]
    fsyncs = [point for point, kind in enumerate(points, 1) if kind == "s"]
    yield [[AtWrite(point, torn=True), AtWrite(rng.randrange(1, 9))] for point in fsyncs]
    moments: Chains = []
    while remaining := random - sum(map(len, moments)):
        length = min(remaining, rng.choice([1, 2, 4, 8]))
        moments.append([After(rng.uniform(0, seconds)) for _ in range(length)])
    yield moments
    errors = [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT]
    failing: Chains = [[AtWrite(point, error=errors[point % 4])] for point, _ in enumerate(points, 1)]
    yield [*failing, *([SmallFiles(size)] for size in (3000, 10_000))]  # room for messages


ROUNDS = 4


def campaign(command: str, folder: Path, random: int, seed: int, until: int = ROUNDS) -> Tally:
    """Every kill of a command in so many rounds, but those that were tried before; faults are printed."""
    whole, tally = reference(command, folder)
    results = folder.with_name(f"{command.replace(' ', '').replace(',', '-')}-{seed}.jsonl")
    if not results.exists():
        _, again = reference(command, folder)  # what is remembered takes no time from now on
        results.write_text(json.dumps([tally.points, again.seconds]) + "\n")
    (points, seconds), *done = map(json.loads, results.read_text().splitlines())
    if points != tally.points:
        raise SystemExit(f"{results} is of another program, which writes elsewhere: remove it")
    planned = [kills for part in islice(rounds(points, seconds, random, seed), until) for kills in part]
    for kills, (hit, fault) in zip(planned, done, strict=False):
        tally.add(kills, hit, fault)
    with open(results, "a") as file:
        for kills in islice(planned, len(done), None):
            hit, fault = survive(command, folder, kills, whole)
            file.write(json.dumps([hit, fault]) + "\n")
            file.flush()
            tally.add(kills, hit, fault)
    for fault in tally.wrong:
        print(f"    {fault}", flush=True)
    return tally


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--random", type=int, default=200)
    parser.add_argument("--only", action="append", choices=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, choices=range(1, ROUNDS + 1), default=ROUNDS)
    given: Any = parser.parse_args()
    folder = given.folder.resolve() / "run"
    warm(folder)
    return max(_round(given, folder, until) for until in range(1, given.rounds + 1))


def _round(given: Any, folder: Path, until: int) -> int:
    """One round of all commands, and a table of what has come of all so far; 1 if something is wrong."""
    total, wrong = 0, 0
    row = "{:<20} {:>7} {:>7} {:>7} {:>9} {:>11}"
    print(row.format("command", "points", "tried", "killed", "survived", "disk fails"))
    for command in given.only or COMMANDS:
        tally = campaign(command, folder, given.random, given.seed, until)
        bad = len(tally.wrong)
        counts = (len(tally.points), tally.tried, tally.killed, tally.killed - bad, tally.failures)
        print(row.format(command, *counts), flush=True)
        total, wrong = total + tally.killed, wrong + bad
    print(f"{total - wrong} of {total} kills survived, {until} of {ROUNDS} rounds", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(_main())
