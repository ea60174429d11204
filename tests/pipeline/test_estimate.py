from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_layermerge.pipeline.estimate import importance_plan, job_plan
from trt_layermerge.pipeline.frontier import worthwhile
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.loading import load
from trt_layermerge.pipeline.tables import profile_plan


def test_looking_writes_nothing(tmp_path: Path, quick_job: Any) -> None:
    loaded = load(quick_job(tmp_path))
    pending, seconds = profile_plan(loaded)
    planned = job_plan(loaded)
    assert [stage["stage"] for stage in planned] == ["profile", "importance", "merge", "fine-tune", "deliver"]
    assert pending > 5 and seconds > 0 and all(stage["seconds"] > 0 for stage in planned)
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_is_not_announced_again(done: Job) -> None:
    loaded = load(done)
    assert profile_plan(loaded) == (0, 0.0)
    assert importance_plan(loaded, worthwhile(loaded))[0] == 0
    assert len(job_plan(load(replace(done, recipe=None)))) == 4
