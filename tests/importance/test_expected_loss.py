"""Losses of changes are means over the labels that the original thinks likely, where a task can tell them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.errors import TaskError
from trt_layermerge.importance.estimators.base import EstimationRequest, Samples
from trt_layermerge.importance.oneshot import one_shot_rows
from trt_layermerge.network.network import trace
from trt_layermerge.testing.estimators import small_network
from trt_layermerge.training.checked_task import CheckedTask, expects
from trt_layermerge.training.task import Classification


def task(kind: type[Classification] = Classification, **settings: Any) -> Classification:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(80, 2, 6, 6, generator=generator), torch.randint(0, 3, (80,), generator=generator)
    data = TensorDataset(images, labels)
    return kind("noise", data, data, batch_size=8, held_out=24, calibration=16, **settings)


class Focal(Classification):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target).square()


class Both(Focal):
    def expected_loss(self, output: Tensor, original: Tensor) -> Tensor:
        return super().expected_loss(output, original).square()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_mean_over_labels(smoothing: float) -> None:
    one = task(label_smoothing=smoothing)
    original, output = torch.randn(2, 5, 3)
    chances, losses = original.softmax(1), torch.zeros(5, 3)
    for sample in range(5):
        for label in range(3):
            losses[sample, label] = one.loss(output[sample : sample + 1], torch.tensor([label]))
    assert one.expected_loss(output, original) == pytest.approx(float((chances * losses).sum(1).mean()), rel=1e-5)


class Given(Classification):
    """Its loss is an attribute."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", torch.nn.CrossEntropyLoss(torch.ones(3)))


@pytest.mark.parametrize(("kind", "told"), [(Classification, True), (Focal, False), (Both, True), (Given, False)])
def test_who_changes_the_loss_alone_is_measured_by_labels(kind: type[Classification], told: bool) -> None:
    assert expects(task(kind)) == told
    assert hasattr(CheckedTask(task(kind)), "expected_loss") == told


def test_no_change_is_a_gain_by_chance(tmp_path: Path) -> None:
    """What is measured beside the original's own uncertainty is the divergence from it."""
    network = small_network()
    drops = [choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY]
    rows = list(
        one_shot_rows(EstimationRequest(network, drops, CheckedTask(task()), Samples(8, 16), 5, tmp_path / "t"))
    )
    with torch.no_grad():
        chances = network.module(next(iter(task().held_out_batches()))[0]).softmax(1)
    entropy = float(-(chances * chances.log()).sum(1).mean())
    assert rows[0].loss_before == pytest.approx(entropy, rel=0.05)
    assert rows and all(row.loss_after > row.loss_before for row in rows)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.second(self.first(x).relu()).relu().mean((2, 3))
        return tuple(head(y) for head in self.heads)


def test_several_outputs_are_refused_in_words(tmp_path: Path) -> None:
    network = trace("heads", TwoHeads().eval(), (2, 6, 6))
    drops = [choice for choice in choices_of(network) if choice.kind is not Kind.KEEP][:1]
    request = EstimationRequest(network, drops, CheckedTask(task()), Samples(8, 16), 5, tmp_path / "t")
    with pytest.raises(TaskError, match="noise"):
        list(one_shot_rows(request))


def test_labels_are_still_what_accuracies_are_of(tmp_path: Path) -> None:
    network = small_network()
    drops = [choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY][:1]
    (row,) = one_shot_rows(EstimationRequest(network, drops, task(), Samples(8, 24), 5, tmp_path / "t"))
    right = [
        float(task().metric(network.module(images), labels).mean()) for images, labels in task().held_out_batches()
    ]
    assert row.accuracy_before == pytest.approx(sum(right) / len(right))
