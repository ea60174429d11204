"""A job computes where it was told to. The second device is a double; nothing here has run on a GPU."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.doubles.gpu import GPU, GpuTensor, gpu
from trt_layermerge.blocks.choice import Block, Kind
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.merging import sequential
from trt_layermerge.network.device import CPU, device_of
from trt_layermerge.pipeline import measured_plans, measuring, training
from trt_layermerge.pipeline.dry_run import importance_plan
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.solving import ChosenPlan
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.training import loop
from trt_layermerge.training.recipe import Recipe


def there(job: Job) -> Session:
    return replace(open_session(job), computes_on=GPU)


def on_the_cpu(module: nn.Module) -> bool:
    return not any(isinstance(value, GpuTensor) for value in module.state_dict().values())


def watch(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[torch.device]:
    """Where the network or the model is that a function is called with."""
    seen, real = [], getattr(module, name)

    def watched(first: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(device_of(first if isinstance(first, nn.Module) else first.module))
        return real(first, *args, **kwargs)

    monkeypatch.setattr(module, name, watched)
    return seen


def test_a_device_that_is_not_here_is_told_before_anything_else(
    tmp_path: Path, quick_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_session(quick_job(tmp_path)).computes_on == CPU
    for name, error in (("cuda", RuntimeNotAvailableError), ("cuda:7", RuntimeNotAvailableError), ("gpu", UsageError)):
        with pytest.raises(error, match=name):
            open_session(quick_job(tmp_path / name, model="no such file", device=name))
        assert not (tmp_path / name).exists()


def test_importance_is_measured_there(
    done: Job, tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch(monkeypatch, measuring, "measure")
    here, other = open_session(replace(done, output=tmp_path / "here")), there(replace(done, output=tmp_path / "there"))
    choices = here.choices[:6]
    expected = measuring.importance_stage(here, recorder, choices)
    assert other.original.exists()  # written before: torch cannot export on the double
    with gpu():
        assert importance_plan(other, choices)[1] > 0
        found = measuring.importance_stage(other, recorder, choices)
    assert seen == [CPU, GPU] and on_the_cpu(other.network.module)
    for one in expected:
        assert found.get(one.choice).loss_after == pytest.approx(one.loss_after, rel=1e-5)


@pytest.mark.parametrize(("method", "decouple"), [("joint", 0.0), ("layermerge", 0.5)])
def test_plans_are_carried_out_and_trained_there(
    done: Job, tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch, method: str, decouple: float
) -> None:
    executed = watch(monkeypatch, sequential, "execute")
    trained = watch(monkeypatch, loop, "hold")  # which every step calls
    inputs = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(session: Session) -> nn.Module:
        session.job.output.mkdir()
        shutil.copy(done.plan_file, session.job.plan_file)  # it gives the run its name
        wanted = Kind.MERGE if decouple else Kind.FIT
        choice = next(c for c in session.choices if c.kind is wanted and c.block == Block(0, 1, 3))
        return training.execute_and_train(session, ChosenPlan((choice,)), inputs, recorder).trained

    job = replace(done, method=method, recipe=Recipe(epochs=1, distillation=0.5, decouple=decouple))
    here, other = open_session(replace(job, output=tmp_path / "here")), there(replace(job, output=tmp_path / "there"))
    expected = run(here)
    with gpu():
        found = run(other)
    assert executed == [CPU, GPU] and trained == [CPU] * 16 + [GPU] * 16
    assert on_the_cpu(other.network.module) and on_the_cpu(found)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_plans_are_evaluated_there(done: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written as ONNX is on the CPU."""
    exported: list[bool] = []

    def export(module: nn.Module, _: object, path: Path) -> None:
        exported.append(on_the_cpu(module))
        path.write_bytes(b"")

    monkeypatch.setattr(measured_plans, "export_onnx", export)
    seen, plan = watch(monkeypatch, measured_plans, "evaluate"), read_plan(done.plan_file).plan
    here, other = open_session(done), there(done)
    expected = measured_plans.execute_plan(here, plan, 1.0).loss
    with gpu():
        found = measured_plans.execute_plan(other, plan, 1.0).loss
    assert (seen, exported) == ([CPU, GPU], [True, True])
    assert found == pytest.approx(expected, rel=1e-5)
