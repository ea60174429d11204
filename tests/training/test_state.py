from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.state import LEAST_SIZE, make_optimizer

RELATIVE = Recipe(optimizer="relative-adam", weight_decay=0.0)


def size(values: Tensor) -> float:
    return float(values.detach().square().mean().sqrt())


@pytest.mark.parametrize("scale", [1e-2, 1.0, 50.0])
def test_a_relative_step_is_a_share_of_what_it_changes(scale: float) -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    with torch.no_grad():
        model.weight.mul_(scale)
        model.bias.zero_()
    before = {name: values.detach().clone() for name, values in model.named_parameters()}
    optimizer = make_optimizer(model, RELATIVE)
    model(torch.randn(32, 8)).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * group["scale"]
    optimizer.step()
    moved = {name: size(values - before[name]) for name, values in model.named_parameters()}
    # The first step of Adam is as long as the rate, and sizes are powers of two.
    assert moved["weight"] / size(before["weight"]) == pytest.approx(0.01, rel=0.5)
    assert moved["bias"] == pytest.approx(0.01 * LEAST_SIZE, rel=0.5)  # which were stuck at 0 else


def test_sizes_make_few_groups_and_decay_is_of_kernels_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3) for _ in range(20)))
    groups = make_optimizer(model, Recipe(optimizer="relative-adam", weight_decay=0.1)).param_groups
    assert len(groups) <= 6 and sum(len(group["params"]) for group in groups) == 40
    for group in groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_other_steps_are_of_one_scale(optimizer: str) -> None:
    groups = make_optimizer(nn.Conv2d(3, 4, 3), Recipe(optimizer=optimizer)).param_groups  # type: ignore[arg-type]
    assert {group["scale"] for group in groups} == {1.0}
