"""What weights are called, and what is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from tests.network.onnx_import.models import Weights, assert_same, imported, make

node = helper.make_node


def kernel(out: int = 3) -> np.ndarray:
    return np.random.default_rng(out).standard_normal((out, 3, 1, 1)).astype(np.float32)


@pytest.mark.parametrize(
    ("weight", "name", "parameter"),
    [
        ("layer1.0.conv1.weight", "node_17", "layer1.0.conv1.weight"),
        ("onnx::Conv_193", "/layer1/layer1.0/conv1/Conv", "layer1.0.conv1.weight"),
        ("onnx::Conv_193", "/features/features.0/features.0.0/Conv_2", "features.0.0.weight"),
        ("StatefulPartitionedCall/net/conv/kernel:0", "net/conv/Conv2D", "net.conv.Conv2D.weight"),
        ("w", "", "y.weight"),  # named after its output
        ("type.forward.weight", "", "type_.forward_.weight"),  # which are methods
        (".weight", "", "layer.weight"),
        ("a b-c.weight", "", "a.b.c.weight"),
    ],
)
def test_a_layer_is_called_what_its_weight_was(weight: str, name: str, parameter: str) -> None:
    module = assert_same(make([node("Conv", ["x", weight], ["y"], name=name)], {weight: kernel()}))
    assert list(dict(module.named_parameters())) == [parameter] == list(module.state_dict())


def test_names_that_meet_get_numbers() -> None:
    weights = {"a": kernel(), "b": kernel(), "conv.weight": kernel()}
    first, second = node("Conv", ["x", "a"], ["1"], name="conv"), node("Conv", ["1", "b"], ["2"], name="/conv/Conv")
    module = assert_same(make([first, second, node("Conv", ["2", "conv.weight"], ["y"])], weights))
    assert set(module.state_dict()) == {"conv.weight", "conv_1.weight", "conv_2.weight"}


def test_a_parameter_may_be_called_what_a_module_is_in() -> None:
    weights: Weights = {"scale": np.ones((3, 1, 1), np.float32), "scale.conv.weight": kernel()}
    nodes = [node("Mul", ["x", "scale"], ["m"]), node("Conv", ["m", "scale.conv.weight"], ["y"])]
    module = assert_same(make(nodes, weights))
    assert set(module.state_dict()) == {"scale", "scale_.conv.weight"}


def test_weights_that_are_used_twice_are_one_module() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"], name="n"), node("Conv", ["a", "w"], ["y"], name="m")]
    module = assert_same(make(nodes, {"w": kernel()}))
    assert sum(isinstance(part, nn.Conv2d) for part in module.modules()) == 1


def test_what_comes_from_weights_is_trained_and_what_is_written_into_the_graph_is_not() -> None:
    fixed = helper.make_tensor("", 1, [3, 1, 1], [1.0, 2.0, 3.0])
    nodes = [
        node("Constant", [], ["fixed"], value=fixed),
        node("Mul", ["x", "fixed"], ["a"]),
        node("Unsqueeze", ["scale", "axes"], ["wide"]),
        node("Mul", ["a", "wide"], ["b"]),
        node("Add", ["b", "half"], ["y"], name="last"),
    ]
    weights = {"scale": np.ones(3, np.float32), "axes": np.array([1, 2]), "half": np.array(0.5, np.float32)}
    module = assert_same(make(nodes, weights))
    assert list(dict(module.named_parameters())) == ["scale"]
    assert [tuple(buffer.shape) for buffer in module.buffers()] == [(3, 1, 1)]


def test_a_bias_of_zeros_that_no_weight_is_behind_is_none() -> None:
    zeros = node("ConstantOfShape", ["size"], ["zeros"])
    model = make([zeros, node("Conv", ["x", "w", "zeros"], ["y"])], {"w": kernel(), "size": np.array([3])})
    assert [name.rpartition(".")[2] for name in assert_same(model).state_dict()] == ["weight"]


def test_importing_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    imported(make([node("Conv", ["x", "w"], ["y"])], {"w": kernel()}))
    assert torch.equal(torch.get_rng_state(), before)
