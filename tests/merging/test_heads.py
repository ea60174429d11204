from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.merging.heads import heads_of, solve_head
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import trace


def test_a_head_learns_what_is_wanted_of_it() -> None:
    torch.manual_seed(0)
    linear, teacher, inputs = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(64, 4)
    solve_head(linear, [(part, teacher(part)) for part in inputs.split(16)], ridge=1e-9)
    torch.testing.assert_close(linear.weight, teacher.weight)
    torch.testing.assert_close(linear.bias, teacher.bias)


def test_a_head_of_features_that_are_alike_stays_calm() -> None:
    """Whatever is left out or rounded of what it reads: its weights do not grow to cancel each other."""
    torch.manual_seed(0)
    teacher, mixed = nn.Linear(200, 10), torch.randn(8, 200)
    features = (torch.randn(256, 8) @ mixed).relu() + 0.01 * torch.randn(256, 200)
    linear, wanted = copy.deepcopy(teacher), teacher(features) + torch.randn(256, 10)
    solve_head(linear, [(features, wanted)])
    assert linear.weight.norm() < 5 * teacher.weight.norm()
    dropped = nn.functional.dropout(features, 0.2)
    noise, before = ((one(dropped) - one(features)).std() for one in (linear, teacher))
    assert noise < 5 * before
    assert (linear(features) - wanted).square().mean() < 0.9 * (teacher(features) - wanted).square().mean()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_of_a_broken_network_stays_as_it_is(value: float) -> None:
    linear = nn.Linear(4, 3)
    before = copy.deepcopy(linear)
    inputs = torch.randn(16, 4)
    inputs[3, 1] = value
    solve_head(linear, [(inputs, torch.randn(16, 3))])
    assert torch.equal(linear.weight, before.weight) and torch.equal(linear.bias, before.bias)


class Timed(nn.Module):
    """Two convolutions, a time step's embedding between them, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.time, self.classifier = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        x = self.first(x) + self.time(t)[:, :, None, None]
        return self.classifier(self.second(x.relu()).mean((2, 3)))


def test_only_what_a_convolution_comes_before_can_be_solved() -> None:
    network = trace("timed", Timed().eval(), (Input("x", (2, 8, 8)), Input("t", (3,))))
    assert [head.target for head in heads_of(network.module)] == ["classifier"]
