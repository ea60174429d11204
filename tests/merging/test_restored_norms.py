"""Norms that training is given compute nothing, fold to what was there, and let a fit train at the original's rate."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.merging.fold import fold_norms, norm_pairs
from trt_layermerge.merging.proof import prove_folds, prove_network
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

SIDES = Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1))


@settings(max_examples=25)
@given(data=st.data())
def test_restored_norms_compute_nothing_and_fold_to_what_was_there(networks, plans, images, data):
    network = data.draw(networks)
    plan = data.draw(plans(network))
    merged = execute(network, plan, [images(3)]).merged
    before, x = copy.deepcopy(merged), images(2, seed=1)
    restore_norms(merged, network, plan, [images(3), images(2, seed=2)])
    assert prove_network(before, merged, x).end_to_end <= 1e-5
    assert prove_network(before, fold_norms(merged), x, prove_folds(merged)).end_to_end <= 1e-5
    assert len(norm_pairs(fold_norms(merged))) == 0
    assert {name: value.shape for name, value in fold_norms(before).state_dict().items()}.keys() == (
        fold_norms(merged).state_dict().keys()
    )


def normed(layers: int, channels: int = 4) -> nn.Sequential:
    """Convolutions with batch norms, and a classifier of three classes."""
    body: list[nn.Module] = []
    for _ in range(layers):
        body += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def fits(layers: int) -> list[Choice]:
    """Each two layers by one."""
    return [Choice(Block(0, start, start + 2), Kind.FIT, SIDES) for start in range(0, layers, 2)]


def test_in_training_mode_the_calibration_data_sees_the_same_function(quick, images):
    torch.manual_seed(0)
    network, x = quick(normed(4), (4, 9, 9)), images(16, (4, 9, 9))
    merged = execute(network, fits(4), [x]).merged
    with torch.no_grad():
        before = merged(x)
        restore_norms(merged, network, fits(4), [x[:10], x[10:]])
        assert len(norm_pairs(merged)) == 2
        torch.testing.assert_close(merged(x), before, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(merged.train()(x), before, rtol=1e-3, atol=1e-4)


def test_filters_are_no_shorter_than_those_of_the_last_layer(quick, images):
    torch.manual_seed(0)
    source, x = normed(4), images(16, (4, 9, 9))
    for number, layer in enumerate(source):
        if isinstance(layer, nn.Conv2d):
            layer.weight.data *= 20 + number  # which the norm takes back
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(400)
    network = quick(source, (4, 9, 9))
    merged = execute(network, fits(4), [x]).merged
    restore_norms(merged, network, fits(4), [x])
    found = [part.weight.flatten(1).norm(dim=1) for part in merged.modules() if isinstance(part, nn.Conv2d)]
    wanted = [source[last].weight.flatten(1).norm(dim=1).median() for last in (3, 9)]
    for lengths, length in zip(found, wanted, strict=True):
        torch.testing.assert_close(lengths, length.expand_as(lengths))


def test_what_had_no_norms_gets_none_and_without_data_nothing_is_known(quick, images):
    torch.manual_seed(0)
    plain = quick(nn.Sequential(*(part for part in normed(4) if not isinstance(part, nn.BatchNorm2d))), (4, 9, 9))
    for network, batches in ((plain, [images(4, (4, 9, 9))]), (quick(normed(4), (4, 9, 9)), [])):
        merged = execute(network, fits(4), [images(4, (4, 9, 9))]).merged
        restore_norms(merged, network, fits(4), batches)
        assert norm_pairs(merged) == []


@pytest.fixture
def task():
    """Brightness in three classes; ten steps an epoch."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (180,), generator=generator)
    images = torch.randn(180, 4, 9, 9, generator=generator) + (labels - 1).view(-1, 1, 1, 1)
    data = torch.utils.data.TensorDataset(images, labels)
    return Classification("bright", data, data, batch_size=16, held_out=20, calibration=64)


def test_fits_train_at_a_rate_at_which_they_break_without_norms(quick, task, tmp_path):
    torch.manual_seed(0)
    source = normed(8).train()
    with torch.no_grad():
        for _ in range(30):  # statistics of its own data, as a trained network has them
            for inputs, _ in task.calibration_batches():
                source(inputs)
    network, recipe = quick(source, (4, 9, 9)), Recipe(epochs=2, lr=0.2, warmup=0.0)
    calibration = [inputs for inputs, _ in task.calibration_batches()]
    losses = {}
    for name in ("bare", "normed"):
        model = execute(network, fits(8), calibration).merged
        if name == "normed":
            restore_norms(model, network, fits(8), calibration)
        result = fine_tune(model, task, recipe, checkpoint=tmp_path / name)
        losses[name] = result.losses[-1] if result.backoffs == 0 else math.inf
    assert losses["bare"] > 0.9 * math.log(3)  # no better than a guess
    assert losses["normed"] < 0.5 * math.log(3)
