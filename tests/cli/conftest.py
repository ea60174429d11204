"""The command line as a user meets it: arguments in; exit code, standard output and standard error out."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trt_layermerge.cli.main import main

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"

DELIVERED = (0, 8)
"""Exit codes of a job that delivers. On a machine with other work, latencies of tiny networks follow no prediction."""

torch.set_num_threads(1)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def _run(*arguments: object) -> Ran:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def run() -> Run:
    return _run


@dataclass(frozen=True)
class Desk:
    """A folder for all files of a small job, and its options.

    What the user brings lies in ``source``, where it stays: tables know a network by its spec.
    """

    folder: Path
    source: Path

    @property
    def stage(self) -> list[object]:
        """Arguments of a stage that needs data."""
        small = ["--max-layers", 2, "--max-kernel", 5, "--calibration", 64, "--held-out", 64]
        at = [
            "--output",
            self.folder / "out",
            "--profiles",
            self.folder / "profiles",
            "--task",
            self.source / "task.py",
        ]
        return [self.source / "model.py", "--weights", self.source / "weights.safetensors", *at, *small]

    @property
    def job(self) -> list[object]:
        """Arguments of ``compress``."""
        return [*self.stage, "--epochs", 1, "--fit-samples", 64, "--budget", "0.9"]

    def files(self) -> dict[str, bytes]:
        """All files, but what Python itself leaves beside a module."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files}


def _desk(folder: Path) -> Desk:
    for name in ("model.py", "task.py"):
        shutil.copy(ASSETS / name, folder / name)
    scope: dict[str, Any] = {}
    exec((ASSETS / "model.py").read_text(), scope)
    save_file(scope["model"]().state_dict(), folder / "weights.safetensors")
    return Desk(folder, folder)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return _desk(tmp_path)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Ran]:
    """A whole job, with ``--json``, whose task file prints something, too."""
    desk = _desk(tmp_path_factory.mktemp("job"))
    with open(desk.folder / "task.py", "a") as file:
        file.write("print('the task is loading')\n")
    return desk, _run("compress", *desk.job, "--json")


@pytest.fixture
def done(first_run: tuple[Desk, Ran], tmp_path: Path) -> Desk:
    """A job that was done, in a folder of its own."""
    for name in ("out", "profiles"):
        shutil.copytree(first_run[0].folder / name, tmp_path / name)
    return Desk(tmp_path, first_run[0].source)
