"""The whole job with PyTorch as its runtime, as with ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_layermerge.delivery.verification import verify_delivery
from trt_layermerge.latency.profile import Profile
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.session import open_session

STAGES = ["profile", "baseline", "importance", "solve", "merge", "fine-tune", "prove", "deliver", "measure", "test"]


def test_the_whole_job_in_pytorch(tmp_path: Path, quick_job: Any, recorder: Any) -> None:
    job = quick_job(tmp_path, runtime="torch:cpu")
    session = open_session(job)
    result = whole_job(session, recorder)
    assert recorder.stages == STAGES
    manifest = verify_delivery(job.output / "manifest.json").manifest
    assert manifest == result.manifest and manifest.engine == "compressed.torch.onnx"
    assert manifest.device.runtime == "torch:cpu" and not manifest.simulated
    assert manifest.compressed.layers < manifest.original.layers
    assert manifest.proof.worst_block <= 1e-10 and manifest.proof.engine <= 1e-4
    (table,) = job.profiles.rglob("torch-cpu-*-fp32.jsonl")
    rows = list(Profile.open(table, session.profile.key))
    assert rows and all(row.timing is not None for row in rows), "every candidate could be built and was timed"
    verify_delivery(job.output / "manifest.json")


def test_its_latencies_never_meet_those_of_another_runtime(tmp_path: Path, quick_job: Any) -> None:
    job = quick_job(tmp_path)
    paths = {open_session(replace(job, runtime=name)).profile.path for name in ("onnxruntime", "torch:cpu")}
    assert len(paths) == 2
