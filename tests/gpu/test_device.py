"""torch on a real GPU. Written without one: what fails here on its first run is to be believed over the double."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trt_layermerge.importance.estimators.fit import Fit
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.network.device import CPU, device_of
from trt_layermerge.pipeline.compression import compress
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.session import open_session

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

quick_job = runpy.run_path(str(Path(__file__).parents[1] / "pipeline" / "assets" / "jobs.py"))["quick_job"]


class Silent:
    def stage(self, name: str) -> None:
        pass

    def progress(self, done: int, total: int, label: str) -> None:
        pass


@pytest.mark.parametrize("estimator", [Fit(), Product()], ids=lambda one: one.name)
def test_importance_is_what_it_is_on_the_cpu(tmp_path: Path, estimator: Fit) -> None:
    """But for rounding, TF32 apart."""
    method = "joint" if estimator == Fit() else "layermerge"
    tables = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for device in ("cpu", "cuda"):
            job = quick_job(tmp_path, device=device, output=tmp_path / device, method=method, estimator=estimator)
            session = open_session(job)
            tables.append(importance_stage(session, Silent()))
            assert device_of(session.network.module) == CPU
    here, there = tables
    assert len(here) == len(there) > 4
    for row in here:
        assert there.get(row.choice).loss_after == pytest.approx(row.loss_after, rel=1e-3), row.choice


@pytest.mark.parametrize("decouple", [0.0, 0.5])
def test_a_whole_job(tmp_path: Path, decouple: float) -> None:
    """Its proofs and the verification of its engine are its own."""
    job = quick_job(tmp_path, device="cuda", method="layermerge" if decouple else "joint")
    compress(open_session(replace(job, recipe=replace(job.recipe, decouple=decouple))), Silent())
