from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trt_layermerge.pipeline import measured_plans
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.report.result import Result

QuickJob = Callable[..., Job]

torch.set_num_threads(1)


class Recorder:
    """Remembers what a job says of itself."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        self.steps.append((self.stages[-1], done, total))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def quick_job() -> QuickJob:
    found: QuickJob = runpy.run_path(str(Path(__file__).parent / "assets" / "jobs.py"))["quick_job"]
    return found


@pytest.fixture(scope="session")
def first_run(tmp_path_factory: pytest.TempPathFactory, quick_job: QuickJob) -> tuple[Job, Result, Recorder]:
    """A whole job, done once."""
    job, recorder = quick_job(tmp_path_factory.mktemp("job")), Recorder()
    return job, whole_job(open_session(job), recorder), recorder


@pytest.fixture
def done(first_run: tuple[Job, Result, Recorder], tmp_path: Path) -> Job:
    """A job that was done, in a folder of its own."""
    job = first_run[0]
    shutil.copytree(job.output, tmp_path / "out")
    shutil.copytree(job.profiles, tmp_path / "profiles")
    return replace(job, output=tmp_path / "out", profiles=tmp_path / "profiles")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often plans are executed and engines compared."""
    calls = {"execute_plan": 0, "compare": 0}

    def count(name: str, function: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            calls[name] += 1
            return function(*arguments)

        return counting

    for name in calls:
        monkeypatch.setattr(measured_plans, name, count(name, getattr(measured_plans, name)))
    return calls
