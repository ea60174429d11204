"""Valid files to begin with: those that a finished job leaves, and the engine of a small model."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.runtimes.base import BuildOptions, Engine
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model

HERE = Path(__file__).parent


TESTS = HERE.parent


class Silent:
    """Says nothing of a job."""

    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None: ...


@dataclass(frozen=True)
class Bench:
    """Valid files of every format, in a folder: those of a finished job, and some beside."""

    folder: Path

    @cached_property
    def job(self) -> Job:
        """A job that was done once, in the folder."""
        job: Job = runpy.run_path(str(TESTS / "pipeline" / "assets" / "jobs.py"))["quick_job"](self.folder)
        if not (job.output / "manifest.json").exists():
            whole_job(open_session(job), Silent())
        return job

    def prepare(self) -> None:
        """Make all valid files; in a process of its own, for what makes them starts threads, which forks would lack."""
        code = "import sys; from tests.fuzz.bench import make_all; make_all(sys.argv[1])"
        command = [sys.executable, "-c", code, str(self.folder)]
        subprocess.run(command, cwd=TESTS.parent, env=os.environ | {"PYTHONPATH": str(TESTS.parent)}, check=True)

    @cached_property
    def profile(self) -> Path:
        """Its profile."""
        (path,) = self.job.profiles.rglob("*.jsonl")
        return path

    @cached_property
    def delivered(self) -> Engine:
        """Its engine."""
        return get_runtime("onnxruntime").load(self.job.output / "compressed.engine.onnx", self.job.options)

    @cached_property
    def built(self) -> Path:
        """The manifest of an engine on its own."""
        model, engine = self.folder / "small.onnx", self.folder / "small.engine.onnx"
        if not manifest_path(engine).exists():
            onnx.save(small_model(), model)
            build_engine(model, get_runtime("onnxruntime"), BuildOptions(), {}, engine)
        return manifest_path(engine)

    def output(self, pattern: str) -> list[bytes]:
        """The job's files of a name."""
        return [path.read_bytes() for path in sorted(self.job.output.glob(pattern))]


def make_all(folder: str) -> None:
    """Make the valid files of all formats in a folder."""
    from tests.fuzz.formats import FORMATS  # whose samples are made here

    bench = Bench(Path(folder))
    for form in FORMATS.values():
        form.samples(bench)
