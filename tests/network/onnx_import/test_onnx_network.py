"""What weights are called, and what is trained."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from tests.network.onnx_import.models import Weights, assert_same, images, imported, make, runtime
from trt_layermerge.network.onnx_import.onnx_graph import read_typed_graph
from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork

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


def test_a_parameter_may_be_called_what_lies_in_a_bias_that_a_module_does_not_have() -> None:
    """As TensorFlow's converter does: ``dense/bias:0`` is added behind a layer ``dense`` without a bias."""
    weights: Weights = {"conv/kernel:0": kernel(), "conv/bias:0": np.ones((3, 1, 1), np.float32)}
    nodes = [node("Conv", ["x", "conv/kernel:0"], ["m"], name="conv"), node("Add", ["m", "conv/bias:0"], ["y"])]
    assert set(assert_same(make(nodes, weights)).state_dict()) == {"conv.weight", "conv.bias_.0"}


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


def read_as_it_is(model: onnx.ModelProto) -> OnnxNetwork:
    return OnnxNetwork(read_typed_graph(model, "net.onnx"), "net.onnx").eval()


def test_a_graph_that_is_read_as_it_is_computes_in_its_own_types() -> None:
    """Weights in halves, between casts, as ``precision`` writes them."""
    weights = {"w": kernel(4).astype(np.float16), "v": np.ones((4, 2), np.float16)}
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("Conv", ["h", "w"], ["c"]),
        node("GlobalAveragePool", ["c"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v"], ["g"], alpha=0.5),
        node("Cast", ["g"], ["y"], to=TensorProto.FLOAT),
    ]
    model = make(nodes, weights)
    module, x = read_as_it_is(model), images(model)
    assert {value.dtype for value in module.parameters()} == {torch.float16}
    (y,) = module.computed(torch.from_numpy(x))
    assert y.dtype == torch.float32 and torch.equal(y, y.half().float()), "it was a half until the last cast"
    np.testing.assert_allclose(y.detach().numpy(), runtime(model, x), rtol=1e-2, atol=1e-3)
    assert {value.dtype for value in imported(model).parameters()} == {torch.float32}, "else all floats are alike"


def test_a_graph_that_is_read_as_it_is_takes_several_inputs_and_gives_several_outputs() -> None:
    float_, whole = TensorProto.FLOAT, TensorProto.INT64
    nodes = [node("Cast", ["t"], ["r"], to=float_), node("Sin", ["r"], ["s"]), node("Add", ["a", "s"], ["y"])]
    inputs = [helper.make_tensor_value_info(n, k, [2, 3]) for n, k in (("t", whole), ("a", float_))]
    outputs = [helper.make_tensor_value_info(name, float_, [2, 3]) for name in ("y", "s")]
    module = read_as_it_is(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)))
    t, a = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.randn(2, 3)
    y, s = module.computed(t, a)
    torch.testing.assert_close(s, torch.sin(t.float()))
    torch.testing.assert_close(y, a + s)
