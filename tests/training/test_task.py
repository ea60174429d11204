from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from trt_layermerge.errors import TaskError
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Batch, Classification

SIXTY_FOUR_BITS = st.integers(-(2**63), 2**63 - 1)


def numbered(samples: int, **fields: int) -> Classification:
    """A task whose images are their own number."""
    data = TensorDataset(torch.arange(samples, dtype=torch.float32)[:, None], torch.arange(samples))
    return Classification("numbered", data, data, **fields)


def seen(batches: Iterator[Batch]) -> list[int]:
    return [int(number) for _, numbers in batches for number in numbers]


def assert_same(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for (x, y), (u, v) in zip(a, b, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


@settings(deadline=None, max_examples=30, database=None)
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000), first_step=st.integers(0, 5))
def test_first_step_skips_exactly_what_came_before(
    task: Classification, seed: int, epoch: int, first_step: int
) -> None:
    whole = list(task.training_batches(seed=seed, epoch=epoch))
    torch.rand(3)  # whatever else draws random numbers changes nothing
    assert len(whole) == task.steps_per_epoch == 5
    assert_same(whole[first_step:], list(task.training_batches(seed=seed, epoch=epoch, first_step=first_step)))


@settings(deadline=None, max_examples=30, database=None)
@given(samples=st.integers(2, 60), data=st.data())
def test_the_split_is_disjoint_and_complete(samples: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(0, samples - 1))
    task = numbered(samples, held_out=held_out, batch_size=data.draw(st.integers(1, 7)), calibration=9)
    evaluated, calibrated = seen(task.held_out_batches()), seen(task.calibration_batches())
    trained = seen(task.training_batches(seed=1, epoch=0))
    assert len(evaluated) == held_out
    assert len(calibrated) == min(9, samples - held_out)
    assert not set(evaluated) & (set(trained) | set(calibrated))
    assert len(trained) == len(set(trained)) == task.steps_per_epoch * task.batch_size > samples - held_out - 7
    assert seen(task.held_out_batches()) == evaluated
    assert seen(task.test_batches()) == list(range(samples))


def test_another_seed_or_epoch_gives_another_order_of_the_same_split() -> None:
    task = numbered(40, held_out=8, batch_size=8)
    runs = [seen(task.training_batches(seed=seed, epoch=epoch)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(run) for run in runs}) == 3
    assert len({tuple(sorted(run)) for run in runs}) == 1


def test_loading_leaves_the_global_generator_alone(task: Classification) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(task.training_batches(seed=0, epoch=0))
    assert torch.equal(torch.rand(1), expected)


def test_only_training_batches_are_augmented(task: Classification) -> None:
    plain = replace(task, augment=None)
    assert_same(list(task.calibration_batches()), list(plain.calibration_batches()))
    augmented, bare = (next(t.training_batches(seed=0, epoch=0)) for t in (task, plain))
    assert not torch.equal(augmented[0], bare[0]) and torch.equal(augmented[1], bare[1])


def test_loss_and_metric(task: Classification) -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 1])
    by_hand: Tensor = -torch.log_softmax(logits, 1)[[0, 1], [0, 1]].mean()
    assert torch.allclose(task.loss(logits, labels), by_hand)
    assert task.metric(logits, labels).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "fields", [{"held_out": 8}, {"held_out": -1}, {"held_out": 2, "batch_size": 0}, {"held_out": 2, "calibration": -1}]
)
def test_an_impossible_split_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(TaskError, match="numbered") as caught:
        numbered(8, **fields)
    assert caught.value.exit_code == 3


@given(a=st.lists(SIXTY_FOUR_BITS, max_size=4), b=st.lists(SIXTY_FOUR_BITS, max_size=4))
@settings(database=None)
def test_mixed_seeds_differ_where_their_numbers_do(a: list[int], b: list[int]) -> None:
    assert (mixed_seed(*a) == mixed_seed(*b)) == (a == b)
    torch.Generator().manual_seed(mixed_seed(*a))


def test_mixed_seeds_are_the_same_on_every_machine() -> None:
    assert mixed_seed(0, 1, 2) == 4_450_782_424_123_420_391
    assert mixed_seed(-1) != mixed_seed(-2)  # unlike Python's own hash
