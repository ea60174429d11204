from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from trt_layermerge.merging.heads import solve_head


def test_a_head_learns_what_is_wanted_of_it() -> None:
    torch.manual_seed(0)
    linear, teacher, inputs = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(64, 4)
    solve_head(linear, [(part, teacher(part)) for part in inputs.split(16)], ridge=1e-9)
    torch.testing.assert_close(linear.weight, teacher.weight)
    torch.testing.assert_close(linear.bias, teacher.bias)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_of_a_broken_network_stays_as_it_is(value: float) -> None:
    linear = nn.Linear(4, 3)
    before = copy.deepcopy(linear)
    inputs = torch.randn(16, 4)
    inputs[3, 1] = value
    solve_head(linear, [(inputs, torch.randn(16, 3))])
    assert torch.equal(linear.weight, before.weight) and torch.equal(linear.bias, before.bias)
