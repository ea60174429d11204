"""Operators without weights of their own, as functions of tensors.

A rule takes a node and returns what to call on its inputs. Inputs that are settings, such as axes or a target shape,
arrive as NumPy arrays, of constants or of arithmetic on sizes; what is left out arrives as ``None``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import torch
from onnx import TensorProto
from onnx.numpy_helper import to_array
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import import spatial
from trt_layermerge.network.onnx_import.convolving import convolve, convolve_transposed
from trt_layermerge.network.onnx_import.indexing import INDEXING, gather_elements
from trt_layermerge.network.onnx_import.layers import UnsupportedError
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.recurrent import recurrent
from trt_layermerge.network.onnx_import.reductions import REDUCTIONS
from trt_layermerge.network.onnx_import.resizing import resize
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, listed, setting_of

BOOL, INT32, INT64 = TensorProto.BOOL, TensorProto.INT32, TensorProto.INT64

FunctionRule = Callable[[Node], OnnxFunction]


def _is(function: Callable[..., Any]) -> FunctionRule:
    """A function of its inputs alone."""
    return lambda _: function


def _across(function: Callable[[Any, Any], Any]) -> FunctionRule:
    """A function of two, for any number of inputs."""
    return lambda _: lambda *values: reduce(function, values)


def _extremum(function: Callable[[Tensor, Tensor], Tensor], number: Callable[[Tensor, Any], Tensor]) -> FunctionRule:
    def of_two(a: Any, b: Any) -> Any:
        a, b = (a, b) if isinstance(a, Tensor) else (b, a)
        return function(a, b) if isinstance(b, Tensor) else number(a, b)

    return _across(of_two)


def _clip(node: Node) -> OnnxFunction:
    def run(x: Tensor, low: Any = None, high: Any = None) -> Tensor:
        low, high = (_number(value) for value in (node.get("min", low), node.get("max", high)))
        if low == 0 and high is None:
            return F.relu(x)
        if low is None or high is None:
            return x if low is None and high is None else torch.clamp(x, low, high)
        return F.relu6(x) if (low, high) == (0, 6) else F.hardtanh(x, low, high)

    return run


def _number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _hard_sigmoid(node: Node) -> OnnxFunction:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


def _swish(node: Node) -> OnnxFunction:
    alpha = node.get("alpha", 1.0)
    return F.silu if alpha == 1 else lambda x: x * torch.sigmoid(alpha * x)


def _gelu(node: Node) -> OnnxFunction:
    return lambda x: F.gelu(x, approximate=node.get("approximate", "none"))


def _softmax(function: Callable[..., Tensor]) -> FunctionRule:
    def translate(node: Node) -> OnnxFunction:
        if node.opset >= 13:
            return lambda x: function(x, node.get("axis", -1))
        axis = node.get("axis", 1)  # and all axes behind it, in old sets
        return lambda x: function(x.flatten(axis), -1).reshape(x.shape)

    return translate


def _reshape(node: Node) -> OnnxFunction:
    def run(x: Tensor, target: OnnxArray) -> Tensor:
        sizes = listed(target) or []
        if not node.get("allowzero", 0):
            sizes = [x.shape[axis] if isinstance(size, int) and size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


def _flatten(node: Node) -> OnnxFunction:
    axis = node.get("axis", 1)
    return lambda x: x.flatten(1) if axis == 1 else x.reshape(prod(x.shape[:axis]), -1)


def _transpose(node: Node) -> OnnxFunction:
    return lambda x: x.permute(node.get("perm") or tuple(reversed(range(x.dim()))))


def _squeeze(node: Node) -> OnnxFunction:
    def run(x: Tensor, axes: OnnxArray | None = None) -> Tensor:
        found = setting_of(node, "axes", axes)
        return x.squeeze() if found is None else x.squeeze(tuple(found))

    return run


def _unsqueeze(node: Node) -> OnnxFunction:
    def run(x: Tensor, axes: OnnxArray | None = None) -> Tensor:
        found = setting_of(node, "axes", axes) or []
        for axis in sorted(axis % (x.dim() + len(found)) for axis in found):
            x = x.unsqueeze(axis)
        return x

    return run


def _cast(node: Node) -> OnnxFunction:
    kind = {1: float, 10: float, 11: float, 16: float, 9: torch.bool, 6: torch.int32, 7: torch.int64}.get(
        node.get("to")
    )
    if kind is None:
        raise UnsupportedError("only floats, whole numbers and truth values can be")
    if kind is float:
        return lambda x: x if x.is_floating_point() else x.float()  # one width for all floats
    return lambda x: x.to(kind)


_WIDTHS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}


def typed_cast(node: Node) -> OnnxFunction:
    """``Cast`` where floats are as wide as the file says."""
    width = _WIDTHS.get(node.get("to"))
    return _cast(node) if width is None else lambda x: x.to(width)


def _depth_to_space(node: Node) -> OnnxFunction:
    size = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, size)

    def run(x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        x = x.reshape(-1, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(-1, channels // size**2, height * size, width * size)

    return run


def _space_to_depth(node: Node) -> OnnxFunction:
    size = node.get("blocksize")

    def run(x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        x = x.reshape(-1, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(-1, channels * size**2, height // size, width // size)

    return run


def _expand(_: Node) -> OnnxFunction:
    def run(x: Tensor, target: OnnxArray) -> Tensor:
        sizes = listed(target) or []
        own = [1] * (len(sizes) - x.dim()) + list(x.shape)
        sizes = [1] * (x.dim() - len(sizes)) + sizes
        known = [isinstance(want, int) and want == 1 for want in sizes]
        return x.expand([size if one else want for size, want, one in zip(own, sizes, known, strict=True)])

    return run


def _layer_norm(node: Node) -> OnnxFunction:
    axis, eps = node.get("axis", -1), node.get("epsilon", 1e-5)
    return lambda x, weight, bias=None: F.layer_norm(x, x.shape[axis:], weight, bias, eps)


def _gemm(node: Node) -> OnnxFunction:
    def run(a: Tensor, b: Tensor, c: Any = None) -> Tensor:
        a, b = a.T if node.get("transA", 0) else a, b.T if node.get("transB", 0) else b
        product = node.get("alpha", 1.0) * (a @ b)
        return product if c is None else torch.add(product, node.get("beta", 1.0) * c)

    return run


def _local_response(node: Node) -> OnnxFunction:
    size = node.get("size")
    settings = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    return lambda x: F.local_response_norm(x, size, *settings)


def _normalised(node: Node) -> OnnxFunction:
    return lambda x: x / torch.linalg.vector_norm(x, node.get("p", 2), node.get("axis", -1), keepdim=True)


def _standardised(node: Node) -> OnnxFunction:
    axes = node.get("axes") or (0, 2, 3)

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / torch.sqrt((centred * centred).mean(axes, keepdim=True) + 1e-9)

    return run


def _shrink(node: Node) -> OnnxFunction:
    width, bias = node.get("lambd", 0.5), node.get("bias", 0.0)
    return lambda x: torch.where(x > width, x - bias, torch.where(x < -width, x + bias, torch.zeros_like(x)))


def _cumulated(node: Node) -> OnnxFunction:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise UnsupportedError("only sums up to and with each element, from the first on, can be")
    return lambda x, axis: x.cumsum(int(axis))


def _filled(node: Node) -> OnnxFunction:
    value = node.get("value")
    number = to_array(value).item() if value is not None else 0.0
    return lambda shape: torch.full(listed(shape) or [], number)


def _mod(node: Node) -> OnnxFunction:
    return torch.fmod if node.get("fmod", 0) else torch.remainder


def _grid_sample(node: Node) -> OnnxFunction:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    padding, corners = node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0))
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, corners)


OF_TENSORS: dict[str, FunctionRule] = {
    "Add": _is(operator.add),
    "And": _is(torch.logical_and),
    "Concat": lambda node: lambda *parts: torch.cat(parts, node.get("axis")),
    "Conv": convolve,
    "ConvTranspose": convolve_transposed,
    "Div": _is(operator.truediv),
    "Einsum": lambda node: lambda *parts: torch.einsum(node.get("equation"), *parts),
    "Equal": _is(torch.eq),
    "GRU": recurrent,
    "GatherElements": gather_elements,
    "Gemm": _gemm,
    "Greater": _is(torch.gt),
    "GreaterOrEqual": _is(torch.ge),
    "GridSample": _grid_sample,
    "LSTM": recurrent,
    "LayerNormalization": _layer_norm,
    "Less": _is(torch.lt),
    "LessOrEqual": _is(torch.le),
    "MatMul": _is(operator.matmul),
    "Max": _extremum(torch.maximum, torch.clamp_min),
    "Mean": _is(lambda *values: reduce(operator.add, values) / len(values)),
    "Min": _extremum(torch.minimum, torch.clamp_max),
    "Mod": _mod,
    "Mul": _is(operator.mul),
    "Or": _is(torch.logical_or),
    "PRelu": _is(lambda x, slope: torch.where(x >= 0, x, slope * x)),
    "Pow": _is(operator.pow),
    "RNN": recurrent,
    "Sub": _is(operator.sub),
    "Sum": _across(operator.add),
    "Where": _is(torch.where),
    "Xor": _is(torch.logical_xor),
}
"""Operators all of whose inputs are tensors: constants among them are parameters, or numbers."""

OF_ONE: dict[str, FunctionRule] = {
    **INDEXING,
    **REDUCTIONS,
    "Abs": _is(torch.abs),
    "Acos": _is(torch.acos),
    "Asin": _is(torch.asin),
    "Atan": _is(torch.atan),
    "AveragePool": spatial.average_pool,
    "Cast": _cast,
    "CastLike": _is(lambda x, _: x),
    "Ceil": _is(torch.ceil),
    "Celu": lambda node: lambda x: F.celu(x, node.get("alpha", 1.0)),
    "Clip": _clip,
    "ConstantOfShape": _filled,
    "Cos": _is(torch.cos),
    "Cosh": _is(torch.cosh),
    "CumSum": _cumulated,
    "DepthToSpace": _depth_to_space,
    "Dropout": lambda node: (
        lambda x, ratio=None, _=None: F.dropout(
            x, _number(node.get("ratio", 0.5) if ratio is None else ratio), training=False
        )
    ),
    "Elu": lambda node: lambda x: F.elu(x, node.get("alpha", 1.0)),
    "Erf": _is(torch.erf),
    "Exp": _is(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _is(torch.floor),
    "Gelu": _gelu,
    "GlobalAveragePool": spatial.global_average,
    "GlobalMaxPool": spatial.global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _is(F.hardswish),
    "Identity": _is(lambda x: x),
    "LRN": _local_response,
    "LeakyRelu": lambda node: lambda x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Log": _is(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "LpNormalization": _normalised,
    "MaxPool": spatial.max_pool,
    "MeanVarianceNormalization": _standardised,
    "Mish": _is(F.mish),
    "Neg": _is(torch.neg),
    "Not": _is(torch.logical_not),
    "Pad": spatial.pad,
    "Reciprocal": _is(torch.reciprocal),
    "Relu": _is(F.relu),
    "Reshape": _reshape,
    "Resize": resize,
    "Round": _is(torch.round),
    "Selu": _is(F.selu),
    "SequenceAt": _is(lambda values, index: values[int(index)]),
    "Shrink": _shrink,
    "Sigmoid": _is(torch.sigmoid),
    "Sign": _is(torch.sign),
    "Sin": _is(torch.sin),
    "Sinh": _is(torch.sinh),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _is(F.softplus),
    "Softsign": _is(F.softsign),
    "SpaceToDepth": _space_to_depth,
    "Sqrt": _is(torch.sqrt),
    "Squeeze": _squeeze,
    "Swish": _swish,
    "Tan": _is(torch.tan),
    "Tanh": _is(torch.tanh),
    "ThresholdedRelu": lambda node: lambda x: torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x)),
    "Tile": _is(lambda x, repeats: x.repeat(listed(repeats))),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": resize,
}
"""Operators of one tensor; what else they take are settings."""
