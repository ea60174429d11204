"""A job of seconds: few candidates, and latencies that need not be sure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trt_layermerge.blocks.limits import Limits
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.budget import Budget
from trt_layermerge.training.recipe import Recipe

HERE = Path(__file__).parent


def quick_job(folder: Path, **changes: object) -> Job:
    """All files in ``folder``."""
    job = Job(
        model=str(HERE / "model.py"),
        task=HERE / "task.py",
        output=folder / "out",
        profiles=folder / "profiles",
        budget=Budget.parse("0.9"),
        limits=Limits(max_kernel=5, max_layers=2),
        samples=Samples(64, 64),
        fit_samples=64,
        recipe=Recipe(epochs=1, distillation=0.5, checkpoint_seconds=0),
        policy=MeasurementPolicy(relative_ci=1e3, min_samples=6, burst_seconds=1e-4, disturbance=1e3, spread=1e3),
    )
    return replace(job, **changes)
