"""What is evaluated is the change alone, whatever the network is for and however its loss is scaled."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from math import inf, nan
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.importance import evaluator
from trt_layermerge.importance.evaluator import WORST_LOSS, Evaluator, first, require_finite, within
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import Network, trace
from trt_layermerge.training.evaluate import Score


class Timed(nn.Module):
    """A time step's embedding is read by layers that come later, and computed first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.early, self.late = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.classifier = nn.Linear(4, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        step = self.embedding(t).sigmoid()
        x = (self.a(x) + self.early(step)[:, :, None, None]).relu()
        x = (self.b(x).relu() + self.late(step)[:, :, None, None]).relu()
        return self.classifier(self.c(x).relu().mean((2, 3)))


class Raw:
    """A regression in units of which there are many."""

    name, steps_per_epoch, scale = "raw", 0, 1e5

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (self.scale * (output - target)).square().mean()

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return -(self.scale * (output - target)).square().mean(1)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return trace("timed", Timed().eval(), (Input("x", (4, 6, 6)), Input("t", (3,))))


def batch(count: int, seed: int) -> tuple[tuple[Tensor, ...], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images, times = torch.randn(count, 4, 6, 6, generator=generator), torch.randn(count, 3, generator=generator)
    return (images, times), torch.randn(count, 2, generator=generator)


def drops(network: Network) -> list[Choice]:
    return [choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY and len(choice.block) == 1]


def test_layers_that_no_change_reaches_stay_as_they_are(network: Network) -> None:
    """Among them those that read what was computed before the change."""
    made = Evaluator(network, Raw(), [batch(5, 0)], [batch(40, 1)])
    with mock.patch.object(evaluator, "solve_head", wraps=evaluator.solve_head) as solved:
        for choice in drops(network):
            made.changed(choice, None)
    assert len(drops(network)) > 1 and solved.call_count == len(drops(network)), "the classifier, once for each"


def test_norms_of_narrowed_channels_are_corrected_too() -> None:
    """Where several convolutions make the channels of a group, what some of them read has changed."""
    torch.manual_seed(0)
    stream = [layer for _ in range(3) for layer in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())]
    network = trace("stream", nn.Sequential(*stream, nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 2)).eval(), (4, 6, 6))
    data = batch(14, 1)[0][:1], batch(14, 1)[1]  # too few for the classifier to make up for it
    made, kept = Evaluator(network, Raw(), [data], [data]), {network.channel_groups[2]: (0, 2)}
    changed = copy.deepcopy(network.module)
    with torch.no_grad():
        changed.get_submodule("6").weight.mul_(3)
    assert made.narrowed(changed, kept).loss == pytest.approx(made.narrowed(network.module, kept).loss, rel=1e-4)


@pytest.mark.parametrize("before", [-3.0, 0.1, 2e6, 1e12])
def test_a_loss_that_is_not_finite_comes_last(before: float) -> None:
    finite = [before, 2 * abs(before), 999 * abs(before)]
    assert [within(loss, before) for loss in finite] == finite
    assert within(nan, before) == within(inf, before) == within(-inf, before) > max(finite)


def test_targets_that_are_not_finite_are_named(network: Network) -> None:
    inputs, targets = batch(5, 0)
    odd = torch.zeros_like(targets, dtype=torch.float32)
    odd[0] = nan
    words = r"task 'raw': batch 2 of held_out_batches yields targets \[5.*\] of which \d+ are nan or infinite"
    with pytest.raises(TaskError, match=words):
        require_finite(Score(nan, 1.0, 10), network, Raw(), [(inputs, targets), (inputs, odd)])
    with pytest.raises(ModelError, match="has a loss of nan"):
        require_finite(Score(nan, 1.0, 5), network, Raw(), [(inputs, targets)])


@pytest.mark.parametrize("after", [nan, inf, 1e30])
def test_the_worst_is_worse_than_any_loss_of_the_original(network: Network, after: float) -> None:
    made = Evaluator(network, Raw(), [batch(5, 0)])
    (choice, *_) = drops(network)
    row = made.row(choice, Score(after, -after, 5), None, 0.0)
    assert row.loss_before > WORST_LOSS
    assert row.loss_after >= 1000 * row.loss_before
    assert row.accuracy_after <= 1000 * row.accuracy_before < 0


def test_a_change_of_a_large_loss_is_told_as_it_is(network: Network) -> None:
    made = Evaluator(network, Raw(), [batch(5, 0)])
    (choice, *_) = drops(network)
    after = made.changed(choice, None)
    row = made.row(choice, after, None, 0.0)
    assert row.loss_after == after.loss > WORST_LOSS and row.accuracy_after == after.accuracy


def raising() -> Iterator[Any]:
    yield torch.zeros(2, 1), torch.zeros(2)
    raise OSError("disk gone")


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([(1, 2, 3)], r"yields a tuple of \(int, int, int\)"),
        ([torch.zeros(2, 1)], "yields a Tensor"),
        ([(torch.zeros(2, 1), [0, 1])], r"yields a tuple of \(Tensor, list\)"),
        ([(torch.zeros(2, 1), torch.tensor(1))], r"inputs \[2, 1\] with targets \[\]"),
        (raising(), "OSError: disk gone"),
    ],
)
def test_data_that_is_no_batch_is_an_error_of_the_task(batches: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        list(first(batches, 5))
