"""Whole jobs in lower precisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.errors import ExitCode, LayerMergeError
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.precision.tolerance import OUTPUT_TOLERANCE
from trt_layermerge.report.result import Result
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.graph_precision import graph_precision


class Silent:
    def stage(self, name: str) -> None: ...

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None: ...


@pytest.fixture(scope="module", params=["fp16", "int8"])
def typed_run(request: Any, tmp_path_factory: pytest.TempPathFactory, quick_job: Any) -> tuple[Job, Result]:
    options = BuildOptions(precision=request.param)
    refine = 2 if request.param == "fp16" else 0
    job = replace(quick_job(tmp_path_factory.mktemp("typed"), options=options), recipe=None, refine=refine)
    return job, whole_job(open_session(job), Silent())


def test_everything_is_in_the_precision(typed_run: tuple[Job, Result]) -> None:
    job, result = typed_run
    precision, manifest = job.options.precision, result.manifest
    assert (manifest.source, manifest.onnx) == ("compressed.onnx", f"compressed.{precision}.onnx")
    named = {manifest.source, manifest.onnx, manifest.engine, manifest.checks, "report.html", "result.json"}
    assert manifest.files.keys() == {*named, "original.onnx", f"original.{precision}.onnx"}
    assert graph_precision(onnx.load(job.output / manifest.onnx)) == precision
    assert graph_precision(onnx.load(job.output / manifest.source)) == "fp32"
    assert graph_precision(onnx.load(job.output / f"original.{precision}.onnx")) == precision, "timed on equal terms"
    assert manifest.device.precision == precision
    (profile,) = job.profiles.rglob("*.jsonl")
    assert precision in profile.name and f'"{precision} n8 ' in profile.read_text()
    assert not list(job.output.glob("plan-*.onnx")), "candidates of refine are gone, in every precision"


def test_what_the_precision_costs_is_told(typed_run: tuple[Job, Result]) -> None:
    job, result = typed_run
    conversion, tolerance = result.manifest.conversion, OUTPUT_TOLERANCE[job.options.precision]
    assert conversion is not None and conversion.layers
    assert 0 < conversion.original < tolerance and 0 < conversion.compressed < tolerance
    assert 1e-5 < result.manifest.proof.engine < tolerance
    verification = verify_delivery(job.output / "manifest.json")
    assert verification.engine == pytest.approx(result.manifest.proof.engine, rel=0.5)
    assert result.manifest.original.accuracy is not None and result.manifest.compressed.accuracy is not None


def test_any_damage_to_any_file_is_found(typed_run: tuple[Job, Result]) -> None:
    job, result = typed_run
    for name in (*result.manifest.files, "manifest.json"):
        path: Path = job.output / name
        content = path.read_bytes()
        for position in (0, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            assert exit_code(job) is ExitCode.PROOF_FAILED
        path.unlink()
        assert exit_code(job) is ExitCode.BAD_INPUT
        path.write_bytes(content)
    verify_delivery(job.output / "manifest.json")


def exit_code(job: Job) -> ExitCode:
    with pytest.raises(LayerMergeError) as caught:
        verify_delivery(job.output / "manifest.json")
    return caught.value.exit_code
