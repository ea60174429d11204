"""A teacher that computes beside its student says the same, and stops with it at the same step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.faulty import faulty, fields
from trt_layermerge.errors import TaskError
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.loop import Recipe, TrainingResult, fine_tune
from trt_layermerge.training.task import Batch, Classification

MakeModel = Callable[[], nn.Module]
Trained = tuple[dict[str, Tensor], TrainingResult]


class Teacher(nn.Module):
    """Another model than the student, which notes the threads that it is called in."""

    def __init__(self, model: nn.Module, fails_at: int = -1) -> None:
        super().__init__()
        self.model, self.fails_at = model, fails_at
        self.threads: list[threading.Thread] = []
        self.second = threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.threads.append(threading.current_thread())
        if len(self.threads) - 1 == self.fails_at:
            raise RuntimeError("the teacher is ill")
        if len(self.threads) == 2:
            self.second.set()
        taught: Tensor = self.model(x)
        return taught


@dataclass(frozen=True)
class Stopping(Classification):
    """A task that stops the run at a step, and hands out one buffer for all of its batches."""

    step: int = -1
    stop: Callable[[], None] = lambda: None

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        buffer = None
        batches = super().training_batches(seed=seed, epoch=epoch, first_step=first_step)
        for step, (images, labels) in enumerate(batches, epoch * self.steps_per_epoch + first_step):
            if step == self.step:
                self.stop()
            buffer = images.clone() if buffer is None else buffer.copy_(images)
            yield buffer, labels


def fail() -> None:
    raise OSError("the disk is full")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def cores(number: int) -> Iterator[None]:
    """Inside, torch has so many threads; none that was begun inside is left after."""
    before, alive = torch.get_num_threads(), set(threading.enumerate())
    torch.set_num_threads(number)
    try:
        yield
    finally:
        assert torch.get_num_threads() == number
        torch.set_num_threads(before)
    assert set(threading.enumerate()) <= alive


@pytest.fixture
def distilled(recipe: Recipe) -> Recipe:
    return replace(recipe, distillation=0.7)


@pytest.fixture
def train(task: Classification, distilled: Recipe, make_model: MakeModel, tmp_path: Path) -> Callable[..., Trained]:
    """Train a fresh model on a number of cores; with the same name, go on with what was begun."""

    def run(number: int, name: str = "run", task: Classification = task, **changes: object) -> Trained:
        torch.manual_seed(3)
        model, teacher = make_model(), Teacher(make_model())
        for parameter in teacher.parameters():
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        with cores(number):
            recipe = replace(distilled, **changes)  # type: ignore[arg-type]
            result = fine_tune(model, task, recipe, checkpoint=tmp_path / name, teacher=teacher)
        mine = threading.current_thread()
        assert all((thread is mine) == (number == 1) for thread in teacher.threads)
        return {key: value.clone() for key, value in model.state_dict().items()}, result

    return run


def assert_same(one: Trained, other: Trained) -> None:
    assert one[1] == other[1]
    assert [name for name, value in one[0].items() if not torch.equal(value, other[0][name])] == []


@pytest.mark.parametrize("changes", [{}, {"accumulation": 3}, {"precision": "bf16"}, {"steps": 7}])
def test_two_cores_end_with_the_bits_of_one(
    task: Classification, train: Callable[..., Trained], changes: dict[str, object]
) -> None:
    one = train(1, "one", **changes)
    assert_same(train(2, "two", **changes), one)
    assert_same(train(2, "buffer", Stopping(**fields(task)), **changes), one)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0, 1, 4, 5, 9])
def test_a_run_stops_at_the_step_that_it_would_on_one_core_and_goes_on_as_if_it_had_not(
    task: Classification, train: Callable[..., Trained], tmp_path: Path, step: int
) -> None:
    whole = train(1, "whole")
    for number in (1, 2):
        path = tmp_path / str(number)
        with pytest.raises(TaskError, match="the disk is full"):
            train(number, path.name, Stopping(**fields(task), step=step, stop=fail))  # type: ignore[arg-type]
        assert path.exists() == (step > 0)
        assert step == 0 or Checkpoint.read(path).position.step == step
        state, result = train(2, path.name)
        assert_same((state, replace(result, resumed_at=0)), whole)


@pytest.mark.parametrize("step", [0, 3, 5])
def test_ctrl_c_loses_no_step(task: Classification, train: Callable[..., Trained], tmp_path: Path, step: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(2, "stopped", Stopping(**fields(task), step=step, stop=interrupt))  # type: ignore[arg-type]
    assert (tmp_path / "stopped").exists() == (step > 0)
    assert step == 0 or Checkpoint.read(tmp_path / "stopped").position.step == step
    state, result = train(2, "stopped")
    assert_same((state, replace(result, resumed_at=0)), train(1, "whole"))


@pytest.mark.parametrize("number", [1, 2])
def test_what_the_teacher_raises_reaches_the_caller_at_its_step(
    task: Classification, distilled: Recipe, make_model: MakeModel, tmp_path: Path, number: int
) -> None:
    path, teacher = tmp_path / "run", Teacher(make_model(), fails_at=3)
    with cores(number), pytest.raises(RuntimeError, match="the teacher is ill"):
        fine_tune(make_model(), task, distilled, checkpoint=path, teacher=teacher)


def test_the_teacher_is_a_batch_ahead(
    task: Classification, distilled: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    """The first step does not end before the teacher has begun with the second."""
    teacher = Teacher(make_model())

    def waits(loss: Tensor) -> Tensor:
        assert teacher.second.wait(300)
        return loss

    with cores(2):
        fine_tune(make_model(), faulty(task, waits), distilled, checkpoint=tmp_path / "run", teacher=teacher)
