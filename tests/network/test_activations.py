from __future__ import annotations

import pytest
import torch
from torch import nn

from trt_layermerge.network.activations import NONNEGATIVE, activation_name


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (nn.ReLU(), "relu"),
        (nn.ReLU6(), "relu6"),
        (nn.Hardtanh(0, 6), "relu6"),
        (nn.Hardtanh(), "hardtanh(-1,1)"),
        (nn.LeakyReLU(0.2), "leaky_relu(0.2)"),
        (nn.ELU(0.5), "elu(0.5)"),
        (nn.PReLU(), "prelu"),
        (nn.Hardswish(), "hardswish"),
        (nn.MaxPool2d(2), None),
        (nn.Softmax(), None),
    ],
)
def test_names(module: nn.Module, name: str | None) -> None:
    assert activation_name(module) == name


@pytest.mark.parametrize("module", [nn.ReLU(), nn.ReLU6(), nn.Sigmoid(), nn.Hardsigmoid()])
def test_nonnegative_ones_are(module: nn.Module) -> None:
    assert activation_name(module) in NONNEGATIVE
    assert module(torch.linspace(-9, 9, 100)).min() >= 0
