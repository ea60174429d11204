from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.importance.estimators.gates import Gates
from trt_layermerge.pipeline import dry_run
from trt_layermerge.pipeline.dry_run import importance_plan, job_plan
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.profiling import profiling_plan
from trt_layermerge.pipeline.session import open_session


def test_looking_writes_nothing(tmp_path: Path, quick_job: Any) -> None:
    session = open_session(quick_job(tmp_path))
    profiling = profiling_plan([session])
    planned = job_plan(session)
    assert [stage["stage"] for stage in planned] == ["profile", "importance", "merge", "fine-tune", "deliver"]
    assert profiling.missing > 5 and profiling.seconds > 0 and all(stage["seconds"] > 0 for stage in planned)
    assert list(tmp_path.iterdir()) == []


def test_gates_are_announced_as_one_training(tmp_path: Path, quick_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "seconds_per_image", lambda session: 1.0)
    job = quick_job(tmp_path, method="depth")
    once, thrice = (open_session(replace(job, estimator=Gates(epochs=epochs))) for epochs in (1, 3))
    merges = [choice for choice in once.choices if choice.kind is not Kind.KEEP]
    assert importance_plan(once, once.choices) == (len(merges), 3 * 256 + 64 * len(merges)) and merges
    assert importance_plan(thrice, thrice.choices) == (len(merges), 3 * 3 * 256 + 64 * len(merges))
    assert importance_plan(once, [choice for choice in once.choices if choice not in merges]) == (0, 0.0)


def test_gates_that_are_trained_are_not_announced_again(
    tmp_path: Path, quick_job: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "seconds_per_image", lambda session: 1.0)
    how = {"method": "depth", "estimator": Gates(epochs=2)}
    session = open_session(quick_job(tmp_path, limits=Limits(max_kernel=7, max_layers=3), **how))
    first, *others = [choice for choice in session.choices if choice.kind is not Kind.KEEP]
    assert others

    def stop(done: int, total: int, label: str) -> None:
        if done == 24:  # of 2 x 16 steps of 16 images; nothing of that is lost
            raise KeyboardInterrupt

    recorder.progress = stop
    with pytest.raises(KeyboardInterrupt):
        importance_stage(session, recorder, [first])
    assert importance_plan(session, session.choices) == (1 + len(others), 3 * 8 * 16 + 64 * (1 + len(others)))
    recorder.progress = lambda done, total, label, **_: None
    importance_stage(session, recorder, [first])
    assert importance_plan(session, session.choices) == (len(others), 64 * len(others))


def test_what_is_known_is_not_announced_again(done: Job) -> None:
    session = open_session(done)
    profiling = profiling_plan([session])
    assert (profiling.missing, profiling.seconds) == (0, 0.0)
    assert importance_plan(session, worthwhile(session))[0] == 0
    assert len(job_plan(open_session(replace(done, recipe=None)))) == 4
