"""Arithmetic on sizes: what ONNX computes from ``Shape`` is computed in Python, as it is traced.

Values are NumPy arrays of Python objects, since a size may be the symbol that stands for the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from onnx.numpy_helper import to_array
from torch import Tensor

from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray

OnnxFunction = Callable[..., Any]


def listed(value: OnnxArray | list[int] | None) -> list[Any] | None:
    """A setting_of as a list, wherever it came from: an attribute, a constant, or arithmetic on sizes."""
    return value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value


def setting_of(node: Node, name: str, given: OnnxArray | None) -> list[Any] | None:
    """What newer operator sets take as an input and older ones as an attribute."""
    return listed(node.get(name) if given is None else given)


def objects(values: Any) -> OnnxArray:
    """An array of objects; of a symbol too, which NumPy would look into."""
    values = list(values)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def shape(node: Node) -> OnnxFunction:
    """Sizes of a tensor, or of some of its axes."""
    span = slice(node.get("start"), node.get("end"))
    return lambda x: objects(x.shape[span] if isinstance(x, Tensor) else x.shape)


def _plain(function: Callable[..., Any]) -> Callable[[Node], OnnxFunction]:
    return lambda _: lambda *arrays: np.asarray(function(*arrays), object)


def _gather(node: Node) -> OnnxFunction:
    return lambda x, indices: np.asarray(np.take(x, indices.astype(np.int64), node.get("axis", 0)), object)


def _axes(function: Callable[[OnnxArray, Any], OnnxArray]) -> Callable[[Node], OnnxFunction]:
    def translate(node: Node) -> OnnxFunction:
        def run(x: OnnxArray, axes: OnnxArray | None = None) -> OnnxArray:
            found = setting_of(node, "axes", axes)
            return function(x, None if found is None else tuple(int(axis) for axis in found))

        return run

    return translate


def _slice(node: Node) -> OnnxFunction:
    def run(
        x: OnnxArray, starts: OnnxArray | None = None, ends: OnnxArray | None = None, *rest: OnnxArray | None
    ) -> OnnxArray:
        axes, steps = (*rest, None, None)[:2]
        begin, end = setting_of(node, "starts", starts) or [], setting_of(node, "ends", ends) or []
        return x[begin[0] : end[0] : (listed(steps) or [1])[0]] if listed(axes) in (None, [0], [-1]) else x

    return run


def _divided(a: Any, b: Any) -> Any:
    return a / b if isinstance(a, float) or isinstance(b, float) else a // b  # sizes are positive


def _cast(node: Node) -> OnnxFunction:
    """To whole numbers; of what becomes a float, only Python's division has to know."""
    to_float = node.get("to") in (1, 10, 11)

    def convert(value: Any) -> Any:
        if to_float:
            return float(value) if isinstance(value, int) else value
        return math.trunc(value) if isinstance(value, float) else value

    return lambda x: np.asarray(np.frompyfunc(convert, 1, 1)(x), object)


def on_sizes(node: Node) -> bool:
    """Whether an operator is computed on sizes where all its inputs are; a constant of a shape may be an image."""
    value = node.get("value")
    return node.op in SIZES and (node.op != "ConstantOfShape" or (value is not None and value.data_type == _INT64))


_INT64 = 7

SIZES: dict[str, Callable[[Node], OnnxFunction]] = {
    "Abs": _plain(np.abs),
    "Add": _plain(lambda a, b: a + b),
    "Cast": _cast,
    "Ceil": _plain(np.frompyfunc(math.ceil, 1, 1)),
    "ConstantOfShape": lambda node: lambda sizes: np.full(listed(sizes), to_array(node.get("value")).item(), object),
    "Concat": lambda _: lambda *parts: np.concatenate(parts),
    "Div": _plain(np.frompyfunc(_divided, 2, 1)),
    "Equal": _plain(np.frompyfunc(lambda a, b: bool(a == b), 2, 1)),
    "Floor": _plain(np.frompyfunc(math.floor, 1, 1)),
    "Gather": _gather,
    "Greater": _plain(np.frompyfunc(lambda a, b: bool(a > b), 2, 1)),
    "Identity": _plain(lambda a: a),
    "Less": _plain(np.frompyfunc(lambda a, b: bool(a < b), 2, 1)),
    "Max": _plain(lambda *values: reduce(np.frompyfunc(max, 2, 1), values)),
    "Min": _plain(lambda *values: reduce(np.frompyfunc(min, 2, 1), values)),
    "Mod": _plain(lambda a, b: a % b),
    "Mul": _plain(lambda a, b: a * b),
    "Neg": _plain(lambda a: -a),
    "Not": _plain(np.frompyfunc(lambda a: not a, 1, 1)),
    "Range": _plain(lambda first, end, step: np.arange(first.item(), end.item(), step.item())),
    "ReduceProd": _plain(lambda a, *_: np.prod(a, keepdims=True)),
    "Reshape": _plain(lambda a, target: a.reshape(listed(target))),
    "Slice": _slice,
    "Squeeze": _axes(lambda x, axes: np.squeeze(x, axes)),
    "Sub": _plain(lambda a, b: a - b),
    "Unsqueeze": _axes(lambda x, axes: np.expand_dims(x, axes or (0,))),
    "Where": _plain(lambda condition, a, b: np.where(condition.astype(bool), a, b)),
}
"""Operators that are computed on sizes where all their inputs are sizes or constants."""
