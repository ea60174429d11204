"""Convolutions that are no layers of PyTorch: of one or three dimensions, of uneven padding, of computed weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import.layers import UnsupportedError, explicit_pads
from trt_layermerge.network.onnx_import.onnx_graph import Node
from trt_layermerge.network.onnx_import.sizes import OnnxFunction
from trt_layermerge.network.onnx_import.spatial import window_sides


def convolve(node: Node) -> OnnxFunction:
    """``Conv`` of any dimensions and padding."""

    def run(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
        kernel, strides, dilations = _geometry(node, weight)
        extents = [1 + (k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        sides = window_sides(node, x, extents, strides)
        even = sides[-2::-2] == sides[::-2]
        padding = sides[-2::-2] if even else 0
        function: Any = getattr(F, f"conv{len(kernel)}d")
        x = x if even else F.pad(x, sides)
        return _biased(bias, lambda own: function(x, weight, own, strides, padding, dilations, node.get("group", 1)))

    return run


def convolve_transposed(node: Node) -> OnnxFunction:
    """``ConvTranspose`` of any dimensions and padding: all of its result, of which padding cuts off the border."""

    def run(x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
        kernel, strides, dilations = _geometry(node, weight)
        more = list(node.get("output_padding") or [0] * len(kernel))
        function: Any = getattr(F, f"conv_transpose{len(kernel)}d")
        groups = node.get("group", 1)
        whole = _biased(bias, lambda own: function(x, weight, own, strides, 0, more, groups, dilations))
        cut = _cut(node, [size for size in x.shape[2:]], list(whole.shape[2:]), strides)
        return F.pad(whole, [-side for side in cut]) if any(cut) else whole

    return run


def _geometry(node: Node, weight: Tensor) -> tuple[list[int], list[int], list[int]]:
    kernel = list(weight.shape[2:])
    if not 1 <= len(kernel) <= 3:
        raise UnsupportedError(f"its kernel has {len(kernel)} dimensions, not 1 to 3")
    ones = [1] * len(kernel)
    return kernel, list(node.get("strides") or ones), list(node.get("dilations") or ones)


def _biased(bias: Any, function: Any) -> Tensor:
    """What a function makes with a bias, which is a number where there is but one channel."""
    result: Tensor = function(bias if isinstance(bias, Tensor) else None)
    return result if bias is None or isinstance(bias, Tensor) else result + bias


def _cut(node: Node, before: list[int], whole: list[int], strides: list[int]) -> list[int]:
    """What is cut off, in the order of ``F.pad``; less than nothing where a larger output is asked for."""
    auto, dims = node.get("auto_pad", "NOTSET"), len(whole)
    wanted = node.get("output_shape")
    if wanted is None and not auto.startswith("SAME"):
        pads = [0] * (2 * dims) if auto == "VALID" else explicit_pads(node, dims)
        return [side for axis in reversed(range(dims)) for side in (pads[axis], pads[axis + dims])]
    target = list(wanted)[-dims:] if wanted else [size * stride for size, stride in zip(before, strides, strict=True)]
    sides: list[int] = []
    for size, to in zip(whole, target, strict=True):
        half, rest = (size - to) // 2, (size - to) - (size - to) // 2
        sides = [*((half, rest) if auto == "SAME_UPPER" else (rest, half)), *sides]
    return sides
