from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.training.faulty import faulty, fields
from trt_layermerge.errors import IncompatibleError, LayerMergeError, TableError, TaskError, UsageError
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.loop import Recipe, TrainingResult, fine_tune
from trt_layermerge.training.task import Batch, Classification

MakeModel = Callable[[], nn.Module]
STEPS = 10


@dataclass(frozen=True)
class Stopping(Classification):
    """A task that stops the run, as a user or a machine would, at one global step."""

    step: int = 0
    stop: type[BaseException] = KeyboardInterrupt

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        batches = super().training_batches(seed=seed, epoch=epoch, first_step=first_step)
        for step, batch in enumerate(batches, epoch * self.steps_per_epoch + first_step):
            if step == self.step:
                if self.stop is KeyboardInterrupt:
                    signal.raise_signal(signal.SIGINT)
                raise self.stop
            yield batch


def stopping(task: Classification, step: int, stop: type[BaseException] = KeyboardInterrupt) -> Stopping:
    return Stopping(**fields(task), step=step, stop=stop)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.fixture(scope="module")
def uninterrupted(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], TrainingResult]:
    model = make_model()
    result = fine_tune(model, task, recipe, checkpoint=tmp_path_factory.mktemp("whole") / "run.checkpoint")
    return state(model), result


@settings(deadline=None, max_examples=25, database=None)
@given(
    steps=st.lists(st.integers(0, STEPS - 1), min_size=1, max_size=3).map(sorted),
    stop=st.sampled_from([KeyboardInterrupt, SystemExit, OSError]),
)
def test_a_stopped_run_ends_with_the_bits_of_an_uninterrupted_one(
    task: Classification,
    recipe: Recipe,
    make_model: MakeModel,
    uninterrupted: tuple[dict[str, Tensor], TrainingResult],
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[int],
    stop: type[BaseException],
) -> None:
    checkpoint = tmp_path_factory.mktemp("stopped") / "run.checkpoint"
    for step in steps:
        with pytest.raises(stop if stop is KeyboardInterrupt else TaskError):
            fine_tune(make_model(), stopping(task, step, stop), recipe, checkpoint=checkpoint)
        assert checkpoint.exists() == (step > 0)
    model = make_model()
    result = fine_tune(model, task, recipe, checkpoint=checkpoint)
    assert_same(state(model), uninterrupted[0])
    assert result == replace(uninterrupted[1], resumed_at=steps[-1])


@dataclass(frozen=True)
class Drawing(Classification):
    """A task that draws from the global generators, or seeds them, wherever it is asked."""

    draw: Callable[[], object] = lambda: None

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        for batch in super().training_batches(seed=seed, epoch=epoch, first_step=first_step):
            self.draw()
            yield batch

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        self.draw()
        return super().loss(output, target)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("draw", [lambda: torch.manual_seed(7), lambda: torch.rand(3)], ids=["seeds", "draws"])
def test_what_a_task_seeds_or_draws_changes_no_result(
    task: Classification,
    recipe: Recipe,
    make_model: MakeModel,
    tmp_path: Path,
    accumulation: int,
    draw: Callable[[], object],
) -> None:
    recipe, usual, beside = replace(recipe, accumulation=accumulation), make_model(), make_model()
    fine_tune(usual, task, recipe, checkpoint=tmp_path / "usual")
    fine_tune(beside, Drawing(**fields(task), draw=draw), recipe, checkpoint=tmp_path / "beside")
    assert_same(state(usual), state(beside))


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"clip_norm": 0.5},
        {"channels_last": False, "momentum": 0.0},
        {"distillation": 0.7, "temperature": 2.0},
    ],
)
def test_every_recipe_resumes_exactly(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = replace(recipe, **changes)
    whole, stopped, teacher = make_model(), make_model(), make_model()
    fine_tune(whole, task, recipe, checkpoint=tmp_path / "whole", teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_model(), stopping(task, 7), recipe, checkpoint=tmp_path / "stopped", teacher=teacher)
    fine_tune(stopped, task, recipe, checkpoint=tmp_path / "stopped", teacher=teacher)
    assert_same(state(stopped), state(whole))
    assert_same(state(teacher), state(make_model()))


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """As in a terminal; a shell starts what it puts in the background with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_inside_a_step_waits_for_its_end_and_loses_nothing(
    task: Classification,
    recipe: Recipe,
    make_model: MakeModel,
    uninterrupted: tuple[dict[str, Tensor], TrainingResult],
    tmp_path: Path,
) -> None:
    calls = iter(range(STEPS))

    def interrupt(loss: Tensor) -> Tensor:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return loss

    checkpoint, model = tmp_path / "run.checkpoint", make_model()
    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_model(), faulty(task, interrupt), recipe, checkpoint=checkpoint)
    assert Checkpoint.read(checkpoint).position.step == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    fine_tune(model, task, recipe, checkpoint=checkpoint)
    assert_same(state(model), uninterrupted[0])


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_second_ctrl_c_goes_through_and_a_half_done_step_is_not_saved(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    calls = iter(range(STEPS))

    def insist(loss: Tensor) -> Tensor:
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return loss

    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_model(), faulty(task, insist), recipe, checkpoint=tmp_path / "run.checkpoint")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from pathlib import Path
from typing import Any
from conftest import RECIPE, tiny_model, tiny_task
from trt_layermerge.training.loop import fine_tune

def progress(done, total, label):
    print(done, flush=True)
    if done == 8:
        input()

recipe = replace(RECIPE, checkpoint_seconds=0)
fine_tune(tiny_model(), tiny_task(), recipe, checkpoint=Path(sys.argv[2]), progress=progress)
"""


def test_kill_9_costs_at_most_what_came_after_the_last_checkpoint(
    task: Classification,
    recipe: Recipe,
    make_model: MakeModel,
    uninterrupted: tuple[dict[str, Tensor], TrainingResult],
    tmp_path: Path,
) -> None:
    checkpoint, model = tmp_path / "run.checkpoint", make_model()
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(checkpoint)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "8":
                process.kill()
    assert process.returncode == -signal.SIGKILL
    result = fine_tune(model, task, recipe, checkpoint=checkpoint)
    assert result.resumed_at == 7
    assert_same(state(model), uninterrupted[0])


def test_a_finished_run_is_not_trained_again(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    checkpoint, first, second = tmp_path / "run.checkpoint", make_model(), make_model()
    told: list[tuple[int, int]] = []
    once = fine_tune(first, task, recipe, checkpoint=checkpoint)
    written = checkpoint.stat().st_mtime_ns
    again = fine_tune(
        second, stopping(task, 0), recipe, checkpoint=checkpoint, progress=lambda d, t, _: told.append((d, t))
    )
    assert again == replace(once, resumed_at=STEPS)
    assert told == [(STEPS, STEPS)]
    assert checkpoint.stat().st_mtime_ns == written
    assert Checkpoint.read(checkpoint).position.finished
    assert not any(name.startswith("momentum/") for name in load_file(checkpoint))
    assert_same(state(first), state(second))


def test_training_learns_and_leaves_the_model_as_it_found_it(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    model = make_model().eval()
    before = evaluate(model, task.held_out_batches(), task)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    result = fine_tune(model, task, replace(recipe, epochs=6), checkpoint=tmp_path / "run.checkpoint")
    assert torch.equal(torch.rand(1), expected)  # its random numbers are its own
    after = evaluate(model, task.held_out_batches(), task)
    assert after.loss < before.loss and after.accuracy > before.accuracy
    assert result.losses[-1] < result.losses[0] and len(result.losses) == 6
    assert not any(module.training for module in model.modules())
    assert all(parameter.is_contiguous() and parameter.grad is None for parameter in model.parameters())


def test_progress_counts_every_step_and_may_evaluate(
    task: Classification,
    recipe: Recipe,
    make_model: MakeModel,
    uninterrupted: tuple[dict[str, Tensor], TrainingResult],
    tmp_path: Path,
) -> None:
    model, told = make_model(), []

    def progress(done: int, total: int, label: str) -> None:
        told.append((done, total, label))
        evaluate(model, task.held_out_batches(), task)

    result = fine_tune(model, task, recipe, checkpoint=tmp_path / "run.checkpoint", progress=progress)
    assert [done for done, _, _ in told] == list(range(STEPS + 1))
    assert told[0][2] == "epoch 1 of 2"
    assert told[7][2].startswith("epoch 2 of 2, loss ")
    assert told[-1] == (STEPS, STEPS, f"epoch 2 of 2, loss {result.losses[-1]:.4f}")
    assert_same(state(model), uninterrupted[0])


def test_a_student_that_is_its_teacher_stays_so(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    before = state(model)
    distil = replace(recipe, distillation=1.0, weight_decay=0.0, lr=0.01)
    fine_tune(model, task, distil, checkpoint=tmp_path / "run.checkpoint", teacher=copy.deepcopy(model))
    for name, value in model.state_dict().items():
        assert torch.allclose(value, before[name], atol=1e-6)


def test_only_kernels_decay(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 4), nn.BatchNorm2d(3), nn.Flatten())
    before = state(model)
    still = faulty(task, lambda loss: loss * 0)
    fine_tune(model, still, replace(recipe, weight_decay=0.1), checkpoint=tmp_path / "run.checkpoint")
    assert model.state_dict()["0.weight"].norm() < before["0.weight"].norm()
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(model.state_dict()[name], before[name])


def test_frozen_parameters_stay(task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    model[0].weight.requires_grad_(False)
    before = state(model)
    fine_tune(model, task, recipe, checkpoint=tmp_path / "run.checkpoint")
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[5].weight, before["5.weight"])


def test_a_checkpoint_of_another_run_is_refused_by_name(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    fine_tune(make_model(), task, recipe, checkpoint=checkpoint)
    wide, other = make_model(), make_model()
    wide[5] = nn.Linear(64, 4)  # type: ignore[operator]
    with torch.no_grad():
        other[5].bias += 1
    refusals: list[tuple[nn.Module, Classification, Recipe, str]] = [
        (make_model(), task, replace(recipe, lr=0.05), "recipe lr: 0.1 there, 0.05 here"),
        (make_model(), replace(task, name="huge"), recipe, "task: tiny there, huge here"),
        (make_model(), replace(task, batch_size=4), recipe, "steps per epoch: 5 there, 10 here"),
        (wide, task, recipe, r"tensor 5.weight: float32\[3, 64\] there, float32\[4, 64\] here"),
        (other, task, recipe, "initial weights: "),
    ]
    for model, a_task, a_recipe, words in refusals:
        before = state(model)
        with pytest.raises(IncompatibleError, match=words) as caught:
            fine_tune(model, a_task, a_recipe, checkpoint=checkpoint)
        assert caught.value.exit_code == 9
        assert_same(state(model), before)
    fine_tune(make_model(), task, replace(recipe, checkpoint_seconds=1), checkpoint=checkpoint)


def test_another_teacher_is_another_run(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    recipe, checkpoint, other = replace(recipe, distillation=0.5), tmp_path / "run.checkpoint", make_model()
    fine_tune(make_model(), task, recipe, checkpoint=checkpoint, teacher=make_model())
    with torch.no_grad():
        other[5].bias += 1
    with pytest.raises(IncompatibleError, match="teacher: "):
        fine_tune(make_model(), task, recipe, checkpoint=checkpoint, teacher=other)


def test_a_damaged_checkpoint_is_bad_input(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    checkpoint.write_bytes(b"not at all")
    with pytest.raises(TableError, match="damaged"):
        fine_tune(make_model(), task, recipe, checkpoint=checkpoint)


@pytest.mark.parametrize("itself", [False, True])
def test_distillation_needs_a_teacher_of_its_own(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path, itself: bool
) -> None:
    model = make_model()
    teacher = model if itself else None
    with pytest.raises(UsageError, match="teacher") as caught:
        fine_tune(model, task, replace(recipe, distillation=0.5), checkpoint=tmp_path / "c", teacher=teacher)
    assert isinstance(caught.value, LayerMergeError) and caught.value.exit_code == 2
