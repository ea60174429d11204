from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from math import erf

import numpy as np
import onnx
import pytest

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InputError
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions
from trt_layermerge.runtimes.graph_precision import graph_precision
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime
from trt_layermerge.runtimes.registry import get_runtime

SIGMOID = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
HARDSIGMOID = lambda x: np.clip(x / 6 + 0.5, 0, 1)  # noqa: E731
ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardtanh(-1,2)": lambda x: np.clip(x, -1, 2),
    "hardtanh(-0.5,1e+06)": lambda x: np.clip(x, -0.5, 1e6),
    "leaky_relu(0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu(0.7)": lambda x: np.where(x > 0, x, 0.7 * np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x * SIGMOID(x),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "gelu": lambda x: x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2))),
    "sigmoid": SIGMOID,
    "tanh": np.tanh,
    "hardswish": lambda x: x * HARDSIGMOID(x),
    "hardsigmoid": HARDSIGMOID,
}


def run(signature: Signature, **inputs: np.ndarray) -> np.ndarray:
    model = candidate_model(signature)
    onnx.checker.check_model(model, full_check=True)
    return OnnxRuntime().build(model, BuildOptions()).run(inputs)["output"]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_what_its_name_says(name: str) -> None:
    x = np.linspace(-8, 8, 2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    expected = ACTIVATIONS[name](x.astype(np.float64))
    np.testing.assert_allclose(run(Signature(2, (3, 4, 4), None, activation=name), input=x), expected, atol=2e-6)


def test_a_prelu_has_a_slope_for_each_channel() -> None:
    x = -np.ones((1, 3, 2, 2), np.float32)
    y = run(Signature(1, (3, 2, 2), None, activation="prelu"), input=x)
    assert len(np.unique(y)) == 3 and (y < 0).all() and (y > -0.3).all()


@pytest.mark.parametrize("name", ["softsign", "leaky_relu", "relu(3)", "hardtanh(1)", "elu(1,2)", "elu(+-)"])
def test_an_activation_nobody_knows_is_named(name: str) -> None:
    with pytest.raises(InputError) as caught:
        candidate_model(Signature(1, (3, 4, 4), None, activation=name))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_convolution_then_addition_then_activation(bias: bool, residual: bool) -> None:
    geometry = Geometry(4, 6, (3, 5), (2, 1), (0, 1, 2, 3), (1, 2), groups=2)
    signature = Signature(2, (4, 9, 10), geometry, bias, residual, "relu")
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 4, 9, 10)).astype(np.float32)
    r = random.standard_normal((2, *signature.output_shape)).astype(np.float32)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in candidate_model(signature).graph.initializer]
    assert len(weights) == 1 + bias
    expected = convolve(x, weights[0], geometry)
    expected += weights[1][:, None, None] if bias else 0
    expected += r if residual else 0
    actual = run(signature, input=x, **({"residual": r} if residual else {}))
    assert actual.shape == (2, *signature.output_shape)
    np.testing.assert_allclose(actual, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_a_pooling_averages_its_padding_too() -> None:
    geometry = Geometry(4, 4, (3, 2), (2, 1), (1, 0, 1, 1), groups=4)
    signature = Signature(2, (4, 9, 10), geometry, bias=False, activation="relu", pooling=True)
    x = np.random.default_rng(0).standard_normal((2, 4, 9, 10)).astype(np.float32)
    assert not candidate_model(signature).graph.initializer
    expected = convolve(x, np.full((4, 1, 3, 2), 1 / 6), geometry)
    np.testing.assert_allclose(run(signature, input=x), np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def convolve(x: np.ndarray, weights: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Tap by tap in float64, group by group."""
    top, left, bottom, right = geometry.padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    height, width = geometry.output_size((x.shape[2] - top - bottom, x.shape[3] - left - right))
    (sh, sw), (dh, dw), g = geometry.stride, geometry.dilation, geometry.groups
    output = np.zeros((x.shape[0], geometry.out_channels, height, width))
    for i in range(geometry.kernel[0]):
        for j in range(geometry.kernel[1]):
            tap = x[:, :, i * dh :: sh, j * dw :: sw][:, :, :height, :width]
            tap = tap.reshape(x.shape[0], g, -1, height, width)
            kernel = weights[:, :, i, j].reshape(g, geometry.out_channels // g, -1)
            output += np.einsum("ngchw,goc->ngohw", tap, kernel).reshape(output.shape)
    return output


@pytest.mark.parametrize("geometry", [None, Geometry(6, 6, (3, 3), padding=(1, 1, 1, 1))])
def test_shift_then_group_norm_then_addition(geometry: Geometry | None) -> None:
    signature = Signature(2, (6, 5, 4), geometry, residual=True, activation="relu", shift=True, group_norm=3)
    random = np.random.default_rng(0)
    x, r = random.standard_normal((2, 2, 6, 5, 4)).astype(np.float32)
    s = 9 * random.standard_normal((2, 6, 1, 1)).astype(np.float32)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in candidate_model(signature).graph.initializer]
    scale, offset = (weight for weight in weights if weight.shape == (6, 1, 1))
    y = x if geometry is None else convolve(x, weights[0], geometry) + weights[1][:, None, None]
    groups = (y + s).reshape(2, 3, -1)
    groups = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + 1e-6)
    expected = np.maximum(groups.reshape(y.shape) * scale + offset + r, 0)
    np.testing.assert_allclose(run(signature, input=x, shift=s, residual=r), expected, rtol=1e-4, atol=1e-5)


def test_a_group_norm_alone_can_be_timed_amid_a_network() -> None:
    signature = Signature(2, (8, 5, 4), None, activation="silu", group_norm=4)
    options = BuildOptions(isolated=True)
    assert len(OnnxRuntime().build(candidate_model(signature), options).time(2)) == 2


def test_the_same_signature_is_the_same_model() -> None:
    signature = Signature(1, (3, 4, 4), Geometry(3, 4, (3, 3)), activation="prelu")
    assert candidate_model(signature).SerializeToString() == candidate_model(signature).SerializeToString()


def test_half_precision_is_typed_in_the_graph() -> None:
    model = candidate_model(Signature(1, (3, 4, 4), Geometry(3, 4, (3, 3)), activation="relu", precision="fp16"))
    onnx.checker.check_model(model, full_check=True)
    values = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("residual", [True, False])
def test_int8_is_what_flows_between_blocks(residual: bool) -> None:
    signature = Signature(2, (4, 9, 10), Geometry(4, 6, (3, 3)), True, residual, "relu", precision="int8")
    model = candidate_model(signature)
    onnx.checker.check_model(model, full_check=True)
    values = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in values} == {onnx.TensorProto.INT8}
    assert graph_precision(model) == "int8" and [node.op_type for node in model.graph.node][-1] == "QuantizeLinear"
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert all(not weight.any() for weight in weights if weight.dtype == np.int8 and weight.ndim < 4), "zero points"
    random = np.random.default_rng(0)
    x = random.integers(-127, 128, (2, 4, 9, 10)).astype(np.int8)
    r = random.integers(-127, 128, (2, *signature.output_shape)).astype(np.int8)
    kernel = next(weight for weight in weights if weight.ndim == 4)
    scales, bias = (weight for weight in weights if weight.dtype == np.float32 and weight.shape == (6,))
    expected = convolve(4 / 127 * x, kernel * scales[:, None, None, None], signature.convolution)
    expected += bias[:, None, None] + (4 / 127 * r if residual else 0)
    actual = (
        OnnxRuntime()
        .build(model, BuildOptions(precision="int8"))
        .run({"input": x} | ({"residual": r} if residual else {}))
    )
    expected = np.clip(np.rint(np.maximum(expected, 0) * 127 / 4), -128, 127)
    assert np.abs(actual["output"] - expected).max() <= 1, "one step, where kernels round another way"


@pytest.mark.parametrize("activation", ["relu", "gelu", "hardswish"])
def test_int8_without_a_convolution_is_a_chain_of_float_operators(activation: str) -> None:
    model = candidate_model(Signature(1, (3, 4, 4), None, residual=True, activation=activation, precision="int8"))
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("DequantizeLinear") == 2 and operators.count("QuantizeLinear") == 1


def test_a_precision_nobody_knows_is_named() -> None:
    with pytest.raises(InputError, match="fp8"):
        candidate_model(Signature(1, (3, 4, 4), None, activation="relu", precision="fp8"))


def test_nothing_has_no_model() -> None:
    with pytest.raises(ValueError, match="empty"):
        candidate_model(Signature(1, (3, 4, 4), None))


OLDEST = {"fp32": "tensorrt-rtx:sm75", "fp16": "tensorrt-rtx:sm75", "int8": "tensorrt-rtx:sm80"}
COMPILED = {
    "add": Signature(8, (16, 14, 14), Geometry(16, 16, (3, 3), padding=(1, 1, 1, 1)), True, True, "relu"),
    "depthwise": Signature(
        8, (24, 14, 14), Geometry(24, 24, (5, 5), (2, 2), (2, 2, 2, 2), groups=24), True, False, "relu6"
    ),
    "no convolution": Signature(8, (16, 14, 14), None, residual=True, activation="relu"),
}


@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="TensorRT-RTX is not installed: the extra tensorrt-rtx")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_candidates_compile(name: str, precision: str) -> None:
    """One block of each kind, for the oldest target with the precision; ``runtimes/`` has the compiler's own tests."""
    options, runtime = BuildOptions(precision=precision, isolated=True), get_runtime(OLDEST[precision])
    engine = runtime.build(candidate_model(replace(COMPILED[name], precision=precision)), options)
    assert engine.describe().compute_capability == ("8.0" if precision == "int8" else "7.5")
