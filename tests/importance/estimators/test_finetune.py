"""The papers' estimator trains the network that will be merged, on a part of the data, and evaluates it on another."""

from __future__ import annotations

import signal
from dataclasses import astuple, replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import UsageError
from trt_layermerge.importance import choice_training
from trt_layermerge.importance.choice_training import changed_network
from trt_layermerge.importance.estimators.base import Samples
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.product import Product
from trt_layermerge.importance.evaluator import WORST_LOSS
from trt_layermerge.importance.filling import Estimation, measure, table_key
from trt_layermerge.importance.subset import Subset
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import trace
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.task import Classification

HOW = Estimation(Finetune(share=0.3, lr=0.05), Samples(8, 8))


@pytest.fixture(scope="module")
def network(quick):
    torch.manual_seed(0)
    body = [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    return quick(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), (2, 6, 6))


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(80, 2, 6, 6, generator=generator), torch.randint(0, 3, (80,), generator=generator)
    data = torch.utils.data.TensorDataset(images, labels)
    return Classification("double", data, data, batch_size=4, held_out=40, calibration=8)


def opened(folder, network, task, how=HOW):
    return ImportanceTable.open(folder / "importance.jsonl", table_key(network, task, how))


def test_every_choice_is_trained_from_what_will_be_merged(network, task, tmp_path, monkeypatch):
    """Also: kept layers have a row, evaluated data is as much as was trained on, and no checkpoint stays."""
    trained, real = [], choice_training.fine_tune

    def spy(model, subset, recipe, **paths):
        trained.append((sum(len(t) for _, t in subset.training_batches(seed=0, epoch=0)), recipe.lr, recipe.warmup))
        return real(model, subset, recipe, **paths)

    monkeypatch.setattr(choice_training, "fine_tune", spy)
    table = opened(tmp_path, network, task)
    choices = choices_of(network)
    measure(network, choices, task, table, HOW)
    assert {row.choice for row in table} == {choice.key for choice in choices}
    assert trained == [(12, 0.05, 0.0)] * len(choices)  # 0.3 of 10 steps of 4 images
    assert [path.name for path in tmp_path.iterdir()] == ["importance.jsonl"]
    assert any(row.loss_after != row.loss_before for row in table)


def test_a_choice_that_was_interrupted_goes_on(network, task, tmp_path, monkeypatch):
    choices = [choice for choice in choices_of(network) if choice.kind is not Kind.FIT]
    (tmp_path / "whole").mkdir()
    whole = opened(tmp_path / "whole", network, task)
    measure(network, choices, task, whole, HOW)
    real, steps = task.training_batches, []

    def batches(self, **which):
        for batch in real(**which):
            steps.append(1)
            yield batch
            if len(steps) == 6:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(type(task), "training_batches", batches)
    with pytest.raises(KeyboardInterrupt):
        measure(network, choices, task, opened(tmp_path, network, task), HOW)
    assert list(tmp_path.glob("*.checkpoint.safetensors"))
    table = opened(tmp_path, network, task)
    measure(network, choices, task, table, HOW)
    for row, expected in zip(table, whole, strict=True):
        assert astuple(replace(row, seconds=0)) == astuple(replace(expected, seconds=0))
    looked_at = 2  # one batch for its size, by each of the two calls
    assert len(steps) == 3 * len(choices) + looked_at, "a step was repeated"


def test_a_kill_between_a_row_and_its_checkpoint_leaves_neither_behind(network, task, tmp_path):
    choices = choices_of(network)[:2]
    table = opened(tmp_path, network, task)
    measure(network, choices, task, table, HOW)
    left = [choice_training.checkpoint_of(choice, task, table.path) for choice in choices]
    others = tmp_path / "importance-0123456789ab.checkpoint.safetensors"  # of another task's
    for path in (*left, others):
        path.touch()
    measure(network, choices, task, opened(tmp_path, network, task), HOW)
    assert not any(path.exists() for path in left) and others.exists()


def test_a_kept_layer_is_initialised_anew_and_nothing_else(network):
    keep = next(choice for choice in choices_of(network) if choice.kind is Kind.KEEP)
    before = network.module.state_dict()
    after = changed_network(network, keep, [], seed=3).state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} >= {"0.weight"}
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith(("0.", "1.")))
    again = changed_network(network, keep, [], seed=3).state_dict()
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_a_merge_is_trained_unmerged(network):
    merge = next(c for c in choices_of(network) if c.kind is Kind.MERGE and len(c.kept) == 2)
    model = changed_network(network, merge, [], seed=0)
    assert sum(isinstance(part, nn.Conv2d) for part in model.modules()) == 2


def test_an_added_activation_is_trained_behind_its_block(quick, task, tmp_path):
    """Of a fit, which is one convolution, and of a merge, which is not merged yet."""
    torch.manual_seed(0)
    wide = [nn.Conv2d(2, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU6()]
    head = [nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    network = quick(nn.Sequential(*wide, nn.Conv2d(8, 4, 1), *head), (2, 6, 6))
    named = {choice.key: choice for choice in choices_of(network, Limits(bottleneck_activations=True))}
    table, inputs = opened(tmp_path, network, task), [torch.randn(8, 2, 6, 6)]
    for kind, convolutions in (("fit", 2), ("merge", 4)):
        choice = named[f"0:0-3 {kind} 3x3 g1 +relu6"]
        model = changed_network(network, choice, inputs, seed=0)
        assert sum(isinstance(part, nn.Conv2d) for part in model.modules()) == convolutions
        assert [type(part) for part in model.modules() if isinstance(part, (nn.ReLU, nn.ReLU6))] == [nn.ReLU6, nn.ReLU]
        measure(network, [choice], task, table, HOW)
        assert table.get(choice.key) is not None


def test_training_that_diverges_is_the_worst(network, task, tmp_path):
    how = replace(HOW, estimator=Finetune(share=1.0, lr=1e30))
    choice = next(choice for choice in choices_of(network) if choice.kind is Kind.IDENTITY)
    table = opened(tmp_path, network, task, how)
    measure(network, [choice], task, table, how)
    (row,) = table
    assert (row.loss_after, row.accuracy_after) == (WORST_LOSS, -WORST_LOSS)


class Timed(nn.Module):
    """Images and time steps in, images out."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.time = nn.Linear(1, 4)

    def forward(self, x, time):
        return self.b(F.relu(self.a(x) + self.time(time[:, None] / 10)[:, :, None, None]))


def test_several_inputs_are_trained_on(task, tmp_path):
    torch.manual_seed(0)
    timed = trace("timed", Timed(), (Input("x", (2, 6, 6)), Input("time", (), below=10)))
    denoising = Denoising(task, timesteps=10)
    table = opened(tmp_path, timed, denoising)
    choices = [choice for choice in choices_of(timed) if choice.kind is not Kind.FIT]
    measure(timed, choices, denoising, table, HOW)
    assert {row.choice for row in table} == {choice.key for choice in choices} and len(choices) > 2
    held_out = list(islice(denoising.held_out_batches(), 3))  # as much as is trained on
    score = evaluate(timed.module, held_out, denoising)
    for row in table:
        assert (row.loss_before, row.accuracy_before) == pytest.approx((score.loss, score.accuracy), rel=1e-5)
        assert row.loss_after != row.loss_before and row.accuracy_after == pytest.approx(-row.loss_after, rel=1e-5)


def test_a_subset_resumes_and_repeats(task):
    subset = Subset.of(task, share=0.3, seed=0)
    assert (subset.steps_per_epoch, subset.images) == (3, 12)
    whole = list(subset.training_batches(seed=0, epoch=0))
    for epoch, first in ((0, 1), (4, 0)):
        rest = list(subset.training_batches(seed=0, epoch=epoch, first_step=first))
        assert len(rest) == 3 - first
        assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, whole[first:], strict=True))
    assert F.cross_entropy(torch.eye(3), torch.arange(3)) == subset.loss(torch.eye(3), torch.arange(3))


def test_a_share_that_is_whole_batches_is_not_rounded_up(task):
    """0.07 times 100 is 7.000000000000001 to a computer."""
    hundred = SimpleNamespace(
        **{name: getattr(task, name) for name in ("training_batches", "name")}, steps_per_epoch=100
    )
    assert [Subset.of(hundred, share, seed=0).steps_per_epoch for share in (0.07, 0.071, 0.14, 0.55, 1.0)] == [
        7, 8, 14, 55, 100,
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"lr": 0.0}, {"epochs": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        Finetune(**wrong)


def test_product_measures_products_only(network, task, tmp_path):
    how = Estimation(Product(), Samples(8, 8))
    table = opened(tmp_path, network, task, how)
    choices = choices_of(network)
    measure(network, [choice for choice in choices if choice.kind is not Kind.FIT], task, table, how)
    assert len(table) == sum(choice.kind in (Kind.MERGE, Kind.IDENTITY) for choice in choices)
    with pytest.raises(UsageError, match="no product of weights"):
        measure(network, choices, task, table, how)
