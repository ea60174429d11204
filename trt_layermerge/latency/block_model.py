"""A candidate block as ONNX, from its signature alone: seeded weights, for a latency does not depend on them.

Written in operators of opset 18, as an exporter would write them, so that a runtime fuses what it would fuse in a
network. In INT8, what a block takes and gives are INT8 tensors, as between two blocks of a network: Q/DQ pairs are cut
in the middle, where ``precision.quantise`` puts them, and no time is spent on conversions that a network does not make.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import InputError
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.onnxfile import OPSET

IR_VERSION = 10
GROUP_NORM_EPSILON = 1e-6
"""Of group norms; no latency depends on it."""

INPUT, SHIFT, RESIDUAL, OUTPUT = "input", "shift", "residual", "output"

_ELEMENTS: dict[str, tuple[int, np.dtype[Any]]] = {
    "fp32": (onnx.TensorProto.FLOAT, np.dtype(np.float32)),
    "fp16": (onnx.TensorProto.FLOAT16, np.dtype(np.float16)),
    "int8": (onnx.TensorProto.INT8, np.dtype(np.float32)),
}
"""Type of the inputs and the output, and of the constants."""

_SCALE = 4 / 127
"""Of quantised activations, which are about as large as numbers of a normal distribution."""


def candidate_model(signature: Signature) -> onnx.ModelProto:
    """The model that computes a signature's ``activation(group_norm(convolution(input) + shift) + residual)``.

    Returns:
        A model with inputs ``input`` and, where the signature adds them, ``shift`` and ``residual``, and the output
        ``output``.

    Raises:
        ValueError: The signature is empty; its latency is 0 by definition.
        InputError: Its activation or its precision is not known here.
    """
    if signature.empty:
        raise ValueError("an empty signature has nothing to time")
    if signature.precision not in _ELEMENTS:
        raise InputError(
            f"no candidate of precision {signature.precision!r} can be built: {signature.key}",
            hint=f"precisions with candidates: {', '.join(_ELEMENTS)}",
        )
    return _Builder(signature).model()


class _Builder:
    """One model while it grows, node after node."""

    def __init__(self, signature: Signature) -> None:
        """Begin with the input."""
        self._signature = signature
        self._element, self._dtype = _ELEMENTS[signature.precision]
        self._random = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        signature, tensor = self._signature, self._read(INPUT)
        if signature.convolution is not None:
            tensor = self._convolution(tensor, signature.convolution)
        if signature.shift:
            tensor = self.node("Add", tensor, SHIFT)
        if signature.group_norm is not None:
            tensor = self._group_norm(tensor, signature.group_norm)
        if signature.residual:
            tensor = self.node("Add", tensor, self._read(RESIDUAL))
        if signature.activation is not None:
            self._activation(tensor, signature.activation)
        if self._element == onnx.TensorProto.INT8:
            self.node("QuantizeLinear", self._nodes[-1].output[0], *self._scale(_SCALE))
        self._nodes[-1].output[0] = OUTPUT
        inputs = [self._value(INPUT, signature.input_shape)]
        if signature.shift:
            inputs.append(self._value(SHIFT, (signature.output_shape[0], 1, 1)))
        if signature.residual:
            inputs.append(self._value(RESIDUAL, signature.output_shape))
        outputs = [self._value(OUTPUT, signature.output_shape)]
        graph = helper.make_graph(self._nodes, signature.key, inputs, outputs, self._weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def node(self, operator: str, *inputs: str, **attributes: float | Sequence[int]) -> str:
        """Append a node; the name of its output."""
        output = f"{operator.lower()}_{len(self._nodes)}"
        node = helper.make_node(operator, inputs, [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self._nodes.append(node)
        return output

    def constant(self, value: float | NDArray[np.float64], dtype: type[np.int8] | None = None) -> str:
        """Append a constant; its name."""
        return self._stored(np.asarray(value).astype(dtype or self._dtype))

    def _stored(self, value: NDArray[Any]) -> str:
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(value, name))
        return name

    def slopes(self) -> str:
        """One number in [0.1, 0.3) for each channel of the output."""
        return self.constant(0.1 + 0.2 * self._random.random((self._signature.output_shape[0], 1, 1)))

    def _convolution(self, tensor: str, convolution: Geometry) -> str:
        if self._signature.pooling:
            return self.node(
                "AveragePool",
                tensor,
                kernel_shape=convolution.kernel,
                strides=convolution.stride,
                pads=convolution.padding,
                count_include_pad=1,
            )
        shape = (convolution.out_channels, convolution.in_channels // convolution.groups, *convolution.kernel)
        # Scaled to keep the variance of the input, far from denormals, which would be slow.
        inputs = [tensor, self._convolution_weights(self._random.standard_normal(shape) / sqrt(prod(shape[1:])))]
        if self._signature.bias:
            inputs.append(self.constant(0.1 * self._random.standard_normal(shape[0])))
        return self.node(
            "Conv",
            *inputs,
            kernel_shape=convolution.kernel,
            strides=convolution.stride,
            pads=convolution.padding,
            dilations=convolution.dilation,
            group=convolution.groups,
        )

    def _convolution_weights(self, weights: NDArray[np.float64]) -> str:
        if self._element != onnx.TensorProto.INT8:
            return self.constant(weights)
        scales = np.abs(weights).max(axis=(1, 2, 3), keepdims=True) / 127
        quantised = self.constant(np.rint(weights / scales), np.int8)
        return self.node("DequantizeLinear", quantised, *self._scale(scales.reshape(-1)), axis=0)

    def _read(self, name: str) -> str:
        """An input as the block computes with it."""
        if self._element != onnx.TensorProto.INT8:
            return name
        return self.node("DequantizeLinear", name, *self._scale(_SCALE))

    def _scale(self, scale: float | NDArray[np.float64]) -> tuple[str, str]:
        """A scale and its zero point, which is 0."""
        return self.constant(scale), self.constant(np.zeros_like(scale), np.int8)

    def _group_norm(self, tensor: str, groups: int) -> str:
        """As torch's exporter writes it: instances of all pixels of a group, then a scale and a shift per channel."""
        channels = self._signature.output_shape[0]
        instances = self.node("Reshape", tensor, self._stored(np.array([0, groups, -1])))
        ones, zeros = self.constant(np.ones(groups)), self.constant(np.zeros(groups))
        normalised = self.node("InstanceNormalization", instances, ones, zeros, epsilon=GROUP_NORM_EPSILON)
        shaped = self.node("Reshape", normalised, self.node("Shape", tensor))
        scale = self.constant(0.5 + self._random.random((channels, 1, 1)))
        return self.node(
            "Add", self.node("Mul", shaped, scale), self.constant(self._random.random((channels, 1, 1)) - 0.5)
        )

    def _activation(self, tensor: str, text: str) -> None:
        name, parameters = _parsed(text)
        if name not in _ACTIVATIONS or len(parameters) != _PARAMETERS.get(name, 0):
            raise InputError(
                f"activation {text!r} has no ONNX form here: {self._signature.key}",
                hint=f"activations that have: {', '.join(_ACTIVATIONS)}",
            )
        _ACTIVATIONS[name](self, tensor, *parameters)

    def _value(self, name: str, shape: tuple[int, int, int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self._element, (self._signature.batch, *shape))


def _parsed(text: str) -> tuple[str, tuple[float, ...]]:
    """Name and parameters of ``name`` or ``name(a,b)``."""
    match = re.fullmatch(r"(\w+)(?:\(([^()]+)\))?", text)
    if match is None:
        return text, ()
    try:
        return match[1], tuple(float(number) for number in (match[2] or "").split(",") if number)
    except ValueError:
        return text, ()


def _clip(graph: _Builder, x: str, low: float, high: float) -> str:
    return graph.node("Clip", x, graph.constant(low), graph.constant(high))


def _gelu(graph: _Builder, x: str) -> str:
    """``x / 2 * (1 + erf(x / sqrt(2)))``: the operator of that name came with opset 20."""
    scaled = graph.node("Erf", graph.node("Div", x, graph.constant(sqrt(2))))
    return graph.node("Mul", graph.node("Mul", x, graph.node("Add", scaled, graph.constant(1))), graph.constant(0.5))


_PARAMETERS = {"hardtanh": 2, "leaky_relu": 1, "elu": 1}

_ACTIVATIONS: dict[str, Callable[..., str]] = {
    "relu": lambda graph, x: graph.node("Relu", x),
    "relu6": lambda graph, x: _clip(graph, x, 0, 6),
    "hardtanh": _clip,
    "leaky_relu": lambda graph, x, slope: graph.node("LeakyRelu", x, alpha=slope),
    "prelu": lambda graph, x: graph.node("PRelu", x, graph.slopes()),
    "elu": lambda graph, x, alpha: graph.node("Elu", x, alpha=alpha),
    "silu": lambda graph, x: graph.node("Mul", x, graph.node("Sigmoid", x)),
    "mish": lambda graph, x: graph.node("Mul", x, graph.node("Tanh", graph.node("Softplus", x))),
    "gelu": _gelu,
    "sigmoid": lambda graph, x: graph.node("Sigmoid", x),
    "tanh": lambda graph, x: graph.node("Tanh", x),
    "hardswish": lambda graph, x: graph.node("HardSwish", x),
    "hardsigmoid": lambda graph, x: graph.node("HardSigmoid", x, alpha=1 / 6, beta=0.5),
}
