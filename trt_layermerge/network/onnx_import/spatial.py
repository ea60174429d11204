"""Pooling and padding, as ONNX defines them."""

from __future__ import annotations

import operator
from math import inf, prod
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import.layers import UnsupportedError, explicit_pads, same_padding
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, listed, setting_of


def window_sides(node: Node, x: Tensor, extents: list[int], strides: list[int]) -> list[int]:
    """Padding of a node that slides a window over its input, in the order of ``F.pad``."""
    auto, dims = node.get("auto_pad", "NOTSET"), len(extents)
    if auto.startswith("SAME"):
        return same_padding(x, extents, strides, upper=auto == "SAME_UPPER")
    pads = [0] * (2 * dims) if auto == "VALID" else explicit_pads(node, dims)
    return [side for axis in reversed(range(dims)) for side in (pads[axis], pads[axis + dims])]


def _pool_settings(node: Node) -> tuple[list[int], list[int], list[int], bool]:
    kernel = list(node.get("kernel_shape"))
    if len(kernel) > 3:
        raise UnsupportedError(f"it pools over {len(kernel)} dimensions, not 1 to 3")
    ones = [1] * len(kernel)
    return (
        kernel,
        list(node.get("strides") or ones),
        list(node.get("dilations") or ones),
        bool(node.get("ceil_mode", 0)),
    )


def _even(sides: list[int], kernel: list[int]) -> list[int] | None:
    """Padding as PyTorch's pooling takes it, if it can."""
    before, after = sides[-2::-2], sides[::-2]
    even = before == after and all(2 * side <= size for side, size in zip(before, kernel, strict=True))
    return before if even else None


def _surplus(x: Tensor, sides: list[int], extents: list[int], strides: list[int], *, ceil: bool) -> list[int]:
    """What the last windows need beyond the padding, in the order of ``F.pad``; negative where they leave some over.

    A window that would start in the padding behind the image is none.
    """
    surplus: list[int] = []
    for axis, (size, extent, stride) in enumerate(zip(x.shape[2:], extents, strides, strict=True)):
        before, after = sides[-2 - 2 * axis], sides[-1 - 2 * axis]
        steps = (size + before + after - extent + (stride - 1 if ceil else 0)) // stride
        if ceil and steps * stride >= size + before:
            steps -= 1
        surplus = [0, steps * stride + extent - size - before - after, *surplus]
    return surplus


def max_pool(node: Node) -> OnnxFunction:
    """``MaxPool``; padding never wins."""
    kernel, strides, dilations, ceil = _pool_settings(node)
    extents = [1 + (k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pool: Any = getattr(F, f"max_pool{len(kernel)}d")

    def run(x: Tensor) -> Tensor:
        sides = window_sides(node, x, extents, strides)
        padding = _even(sides, kernel)
        if padding is not None:
            pooled: Tensor = pool(x, kernel, strides, padding, dilations, ceil)
            return pooled
        total = map(operator.add, sides, _surplus(x, sides, extents, strides, ceil=ceil))
        pooled = pool(F.pad(x, list(total), value=-inf), kernel, strides, 0, dilations)
        return pooled

    return run


def average_pool(node: Node) -> OnnxFunction:
    """``AveragePool``; padding counts only where the node says so."""
    kernel, strides, dilations, ceil = _pool_settings(node)
    if any(one != 1 for one in dilations):
        raise UnsupportedError("dilated averages cannot be")
    count, taps = bool(node.get("count_include_pad", 0)), prod(kernel)
    pool: Any = getattr(F, f"avg_pool{len(kernel)}d")

    def run(x: Tensor) -> Tensor:
        sides = window_sides(node, x, kernel, strides)
        padding = _even(sides, kernel)
        if padding is not None:
            pooled: Tensor = pool(x, kernel, strides, padding, ceil, count)
            return pooled
        surplus = _surplus(x, sides, kernel, strides, ceil=ceil)
        ones = F.pad(x.new_ones(1, 1, *x.shape[2:]), sides, value=float(count))
        total, counted = (taps * pool(F.pad(values, surplus), kernel, strides) for values in (F.pad(x, sides), ones))
        averaged: Tensor = total / counted
        return averaged

    return run


def global_average(_: Node) -> OnnxFunction:
    """``GlobalAveragePool``."""
    return lambda x: F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max(_: Node) -> OnnxFunction:
    """``GlobalMaxPool``."""
    return lambda x: x.amax(tuple(range(2, x.dim())), keepdim=True)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(node: Node) -> OnnxFunction:
    """``Pad``; sides in the order of ``F.pad``, last axis first."""
    mode = node.get("mode", "constant")
    if mode not in _PAD_MODES:
        raise UnsupportedError(f"PyTorch has no padding of mode {mode!r}")

    def run(x: Tensor, pads: OnnxArray | None = None, value: Any = None, axes: OnnxArray | None = None) -> Tensor:
        given = setting_of(node, "pads", pads) or []
        of = [axis % x.dim() for axis in listed(axes) or range(x.dim())]
        sides = {axis: (given[i], given[i + len(of)]) for i, axis in enumerate(of)}
        first = min((axis for axis, both in sides.items() if any(both)), default=x.dim())
        if first == x.dim():
            return x
        first = min(first, x.dim() - 2)
        flat = [side for axis in reversed(range(first, x.dim())) for side in sides.get(axis, (0, 0))]
        if mode != "constant":
            return F.pad(x, flat, mode=_PAD_MODES[mode])
        return F.pad(x, flat, value=node.get("value", 0.0) if value is None else float(value))

    return run
