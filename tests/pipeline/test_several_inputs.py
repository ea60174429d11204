"""What a job does for a network of several inputs: everything that needs no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trt_layermerge.pipeline.frontier import frontier_of
from trt_layermerge.pipeline.loading import load
from trt_layermerge.pipeline.tables import baseline_stage, profile_stage

UNET = f"{Path(__file__).parents[1] / 'conformance' / 'unet.py'}:unet"


def test_it_is_profiled_and_its_fastest_plan_found(tmp_path: Path, quick_job: Any, recorder: Any) -> None:
    loaded = load(quick_job(tmp_path, model=UNET, task=None, batch=2))
    profile_stage(loaded, recorder)
    wanted = {signature for choice in loaded.choices for signature in loaded.signatures(choice)}
    rows = [loaded.profile.get(signature) for signature in wanted]
    assert all(row is not None and row.timing is not None for row in rows)
    assert any(signature.group_norm and not signature.convolution for signature in wanted)
    assert any(signature.shift and signature.group_norm and signature.residual for signature in wanted)
    baseline = baseline_stage(loaded, recorder)
    plan = frontier_of(loaded, baseline, None).best(baseline.median_ns)
    assert len(plan.keys) >= len(loaded.network.chains)
