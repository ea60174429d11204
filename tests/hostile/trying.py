"""Gives hostile inputs to the commands that take them: each ends in one message and its exit code, or in a result.

Every command runs in a fork of this process, which has imported everything. What came of each is a line in a file of
the folder; a campaign that was stopped goes on behind it.

Usage: ``python -m tests.hostile.trying FOLDER [--only WORDS] [--every N]``; their order is drawn, always the same, so
that one which was stopped has tried some of each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests.crash.killing import warm
from tests.hostile.case import Hostile, Right
from tests.hostile.file_cases import file_cases, weight_cases
from tests.hostile.onnx_cases import onnx_cases
from tests.hostile.usercode_cases import usercode_cases
from trt_layermerge.cli.commands import build
from trt_layermerge.cli.main import main
from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network import source
from trt_layermerge.probe import MEMORY, _limit, _outcome

SECONDS = 120
"""That one may take, on a machine that does much besides."""

CASES = {one.name: one for made in (usercode_cases, file_cases, weight_cases, onnx_cases) for one in made()}


@dataclass(frozen=True)
class Ended:
    """How a command ended: -SIGKILL if it was stopped."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Trial:
    """Where commands run."""

    folder: Path

    @cache  # noqa: B019 - one for a process
    def usual(self, command: Callable[[Path], list[object]]) -> Any:
        """The result of a command that has nothing hostile."""
        ended = self.run(command)
        if ended.code:
            raise RuntimeError(f"without what is hostile: exit code {ended.code}: {ended.err[-400:]}")
        return _figures(ended)

    def run(self, command: Callable[[Path], list[object]]) -> Ended:
        """Run a command in a fork, in an empty folder that is always the same."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        out, err = self.folder.with_suffix(".out"), self.folder.with_suffix(".err")
        if (child := os.fork()) == 0:
            code = 70
            with contextlib.suppress(BaseException):
                code = _ran(command, self.folder, out, err)
            os._exit(code)
        code = _waited(child)
        return Ended(code, *(path.read_text(errors="replace") for path in (out, err)))

    def faults(self, case: Hostile) -> list[str]:
        """What is wrong with what comes of a hostile input."""
        ended = self.run(case.command)
        found = [] if "Traceback" not in ended.err + ended.out else ["a traceback"]
        if ended.code == 0:
            return found + self._wrong_result(case, ended)
        if ended.code not in [int(code) for code in ExitCode]:
            found.append(f"exit code {ended.code}")
        if (said := len(re.findall(r"(?im)^error: ", ended.err))) != 1:
            found.append(f"{said} messages")
        if ended.out.strip():
            found.append("something on standard output")
        if case.right is Right.SAME:
            found.append("refused")
        return [f"{one}: {ended.err[-400:]}" for one in found]

    def _wrong_result(self, case: Hostile, ended: Ended) -> list[str]:
        if case.right is Right.REFUSED:
            return ["exit code 0"]
        if not ended.out.strip():
            return ["exit code 0 without a result"]
        if case.right is not Right.SAME or case.without is None:
            return []
        found, usual = _figures(ended), self.usual(case.without)
        return [] if found == usual else [f"another result: {found}, not {usual}"]


def _figures(ended: Ended) -> Any:
    """What a job says of its result, but where it lies."""
    return {name: value for name, value in json.loads(ended.out).items() if "seconds" not in name}


def _ran(command: Callable[[Path], list[object]], folder: Path, out: Path, err: Path) -> int:
    os.setsid()
    os.chdir(folder)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    code = 0
    try:
        main([str(one) for one in command(folder)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _waited(child: int) -> int:
    end = time.monotonic() + SECONDS
    while (told := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(told[1])


def _probe(function: Callable[[str], object], path: Path, seconds: float = 60.0) -> None:
    """What ``trt_layermerge.probe`` does in a process that imports everything, in a fork, which has."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        _limit(MEMORY)
        signal.alarm(int(seconds))
        os.write(writing, json.dumps(_outcome(function, str(path), MEMORY)).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    answer = json.loads(said) if said else {"message": f"{path} cannot be read: reading it crashed", "hint": None}
    if "message" in answer:
        raise ModelError(answer["message"], hint=answer["hint"])


def prepare(folder: Path) -> Trial:
    """A place for trials, and this process made ready to be forked."""
    torch.set_num_threads(1)
    warm(folder / "run")
    source.probe = build.probe = _probe  # type: ignore[attr-defined]
    return Trial(folder / "run")


def campaign(folder: Path, names: Iterable[str]) -> int:
    """Try what was not tried before, and print what is wrong; how many are."""
    results = folder / "results.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = dict(map(json.loads, results.read_text().splitlines())) if results.exists() else {}
    trial, wanted = prepare(folder), list(names)
    with open(results, "a") as file:
        for name in wanted:
            if name not in done:
                done[name] = trial.faults(CASES[name])
                file.write(json.dumps([name, done[name]]) + "\n")
                file.flush()
                for fault in done[name]:
                    print(f"{name}: {fault}", flush=True)
    bad = sum(bool(done[name]) for name in wanted)
    print(f"{len(wanted)} hostile inputs, {bad} of them not ended as is right")
    return bad


def _main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1)
    given: Any = parser.parse_args()
    names = [name for name in CASES if given.only in name][:: given.every]
    Random(0).shuffle(names)
    return 1 if campaign(given.folder.resolve(), names) else 0


if __name__ == "__main__":
    sys.exit(_main())
