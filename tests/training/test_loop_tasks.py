"""What is wrong with the task, or comes of it, ends a run in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.training.faulty import Faulty, faulty, fields
from trt_layermerge.errors import InputError, TaskError
from trt_layermerge.training.loop import Recipe, fine_tune
from trt_layermerge.training.task import Batch, Classification

MakeModel = Callable[[], nn.Module]


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), 1e4])
def test_a_loss_that_is_none_at_any_rate_stops_before_it_spoils_the_weights(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path, worst: float
) -> None:
    losses = cycle([1.0, 1.0, worst])
    checkpoint = tmp_path / "run.checkpoint"
    words = r"loss is (nan|inf|\d.*e\+0[34]) at step 2 of 10, learning rate 0\.00625, after 4 tries at higher rates"
    with pytest.raises(InputError, match=words) as caught:
        fine_tune(make_model(), faulty(task, lambda loss: loss * next(losses)), recipe, checkpoint=checkpoint)
    assert "lower lr" in str(caught.value.hint)
    assert not checkpoint.exists()


def test_targets_that_make_a_loss_no_number_are_told(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    class Regressed(Classification):
        def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
            for images, labels in super().training_batches(seed=seed, epoch=epoch, first_step=first_step):
                yield images, labels.float() / (labels > 0)

        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return (output.mean(1) - target).square().mean()

    regressed = Regressed("regressed", task.train, task.test, batch_size=20, held_out=1)
    with pytest.raises(InputError, match=r"; its batch has targets \[20\] of which \d+ are nan or infinite"):
        fine_tune(make_model(), regressed, recipe, checkpoint=tmp_path / "run.checkpoint")


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_a_run_that_diverges_is_the_run_at_half_the_rate_and_says_so(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path, average: float
) -> None:
    """Also: interrupted after that, it goes on to the same bits; and it diverges before and behind a checkpoint."""
    recipe, told = replace(recipe, average=average), []

    def at(step: int) -> Faulty:
        steps = count()
        return faulty(task, lambda loss: loss * (1e9 if next(steps) == step else 1))

    def interrupt(done: int, _total: int, label: str) -> None:
        told.append(label)
        if len(told) == 14:
            raise KeyboardInterrupt

    slow = make_model()
    expected = fine_tune(slow, task, replace(recipe, lr=recipe.lr / 2), checkpoint=tmp_path / "slow")
    for step in (3, 7):
        model = make_model()
        found = fine_tune(model, at(step), recipe, checkpoint=tmp_path / f"at {step}")
        assert found == replace(expected, backoffs=1)
        assert_same(model, slow)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(make_model(), at(7), recipe, checkpoint=tmp_path / "stopped", progress=interrupt)
    assert "diverged, now at lr 0.05" in told[-1] and "diverged" not in told[7]
    model = make_model()
    found = fine_tune(model, task, recipe, checkpoint=tmp_path / "stopped")
    assert found == replace(expected, backoffs=1, resumed_at=5)
    assert_same(model, slow)


def assert_same(a: nn.Module, b: nn.Module) -> None:
    there = b.state_dict()
    assert [name for name, value in a.state_dict().items() if not torch.equal(value, there[name])] == []


def test_what_is_wrong_with_a_task_is_said(
    task: Classification, recipe: Recipe, make_model: MakeModel, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Short(Classification):
        def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
            return iter(list(super().training_batches(seed=seed, epoch=epoch, first_step=first_step))[:-2])

    @dataclass(frozen=True)
    class Empty(Classification):
        def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
            for images, labels in super().training_batches(seed=seed, epoch=epoch, first_step=first_step):
                yield images[:0], labels[:0]

    def out_of_range(loss: Tensor) -> Tensor:
        raise IndexError("Target 10 is out of bounds")

    wrong: list[tuple[Classification, str]] = [
        (Short(**fields(task)), "yields 3 batches in epoch 0; steps_per_epoch says 5"),
        (replace(task, batch_size=50), "an epoch has 0 steps"),
        (Empty(**fields(task)), "a batch of 0 samples in step 1"),
        (faulty(task, lambda loss: loss[None]), r"loss returns \[1\]"),
        (faulty(task, lambda loss: loss.item()), "loss returns a float"),
        (faulty(task, lambda loss: loss.detach()), "does not depend on the network's output"),
        (faulty(task, out_of_range), "loss: IndexError: Target 10"),
    ]
    for number, (a_task, words) in enumerate(wrong):
        with pytest.raises(TaskError, match=words):
            fine_tune(make_model(), a_task, recipe, checkpoint=tmp_path / str(number))


def test_parts_too_small_for_a_norm_are_told(task: Classification, recipe: Recipe, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(TaskError, match="1 samples at once are too few to train on") as caught:
        fine_tune(model, task, replace(recipe, accumulation=8), checkpoint=tmp_path / "c")
    assert "accumulation" in str(caught.value.hint)
