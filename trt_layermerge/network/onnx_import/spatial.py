"""Pooling, resizing and padding of images, as ONNX defines them."""

from __future__ import annotations

import operator
from math import floor, inf
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import.layers import UnsupportedError, explicit_pads, same_padding
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, listed, setting_of


def _pool_sides(node: Node, x: Tensor, extents: list[int], strides: list[int]) -> list[int]:
    """Padding in the order of ``F.pad``."""
    auto = node.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        return same_padding(x, extents, strides, upper=auto == "SAME_UPPER")
    top, left, bottom, right = [0] * 4 if auto == "VALID" else explicit_pads(node, 2)
    return [left, right, top, bottom]


def _pool_settings(node: Node) -> tuple[list[int], list[int], list[int], bool]:
    kernel = list(node.get("kernel_shape"))
    if len(kernel) != 2:
        raise UnsupportedError(f"it pools over {len(kernel)} dimensions, not 2")
    strides, dilations = list(node.get("strides") or (1, 1)), list(node.get("dilations") or (1, 1))
    return kernel, strides, dilations, bool(node.get("ceil_mode", 0))


def _even(sides: list[int], kernel: list[int]) -> tuple[int, int] | None:
    """Padding as PyTorch's pooling takes it, if it can."""
    left, right, top, bottom = sides
    even = left == right and top == bottom and 2 * top <= kernel[0] and 2 * left <= kernel[1]
    return (top, left) if even else None


def _surplus(x: Tensor, sides: list[int], extents: list[int], strides: list[int], *, ceil: bool) -> list[int]:
    """What the last windows need beyond the padding, in the order of ``F.pad``; negative where they leave some over.

    A window that would start in the padding behind the image is none.
    """
    surplus: list[int] = []
    for axis, (size, extent, stride) in enumerate(zip(x.shape[2:], extents, strides, strict=True)):
        before, after = sides[2 - 2 * axis], sides[3 - 2 * axis]
        steps = (size + before + after - extent + (stride - 1 if ceil else 0)) // stride
        if ceil and steps * stride >= size + before:
            steps -= 1
        surplus = [0, steps * stride + extent - size - before - after, *surplus]
    return surplus


def max_pool(node: Node) -> OnnxFunction:
    """``MaxPool``; padding never wins."""
    kernel, strides, dilations, ceil = _pool_settings(node)
    extents = [1 + (k - 1) * d for k, d in zip(kernel, dilations, strict=True)]

    def run(x: Tensor) -> Tensor:
        sides = _pool_sides(node, x, extents, strides)
        padding = _even(sides, kernel)
        if padding is not None:
            return F.max_pool2d(x, kernel, strides, padding, dilations, ceil)
        total = map(operator.add, sides, _surplus(x, sides, extents, strides, ceil=ceil))
        return F.max_pool2d(F.pad(x, list(total), value=-inf), kernel, strides, 0, dilations)

    return run


def average_pool(node: Node) -> OnnxFunction:
    """``AveragePool``; padding counts only where the node says so."""
    kernel, strides, dilations, ceil = _pool_settings(node)
    if dilations != [1, 1]:
        raise UnsupportedError("dilated averages cannot be")
    count = bool(node.get("count_include_pad", 0))

    def run(x: Tensor) -> Tensor:
        sides = _pool_sides(node, x, kernel, strides)
        padding = _even(sides, kernel)
        if padding is not None:
            return F.avg_pool2d(x, kernel, strides, padding, ceil, count)
        surplus = _surplus(x, sides, kernel, strides, ceil=ceil)
        ones = F.pad(x.new_ones(1, 1, *x.shape[2:]), sides, value=float(count))
        total, counted = (
            F.avg_pool2d(F.pad(values, surplus), kernel, strides, divisor_override=1)
            for values in (F.pad(x, sides), ones)
        )
        return total / counted

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


def resize(node: Node) -> OnnxFunction:
    """``Resize`` and ``Upsample``.

    Nearest neighbours are those of ONNX, whatever its rounding: where PyTorch's differ, they are picked one by one.
    """
    mode = node.get("mode", "nearest")
    place = _coordinates(node)
    if mode != "nearest" and (place not in ("half_pixel", "pytorch_half_pixel", "align_corners") or _exotic(node)):
        raise UnsupportedError(f"PyTorch does not resize {mode} with {place}, or not with these attributes")
    if mode == "cubic" and node.get("cubic_coeff_a", -0.75) != -0.75:
        raise UnsupportedError("PyTorch's cubic coefficient is -0.75")
    torch_mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(mode)
    if torch_mode is None or node.get("axes") not in (None, [2, 3], [0, 1, 2, 3]):
        raise UnsupportedError("only images are resized, by nearest, linear or cubic")

    def run(x: Tensor, *given: OnnxArray | None) -> Tensor:
        scales, sizes = _targets(node, given)
        if mode == "nearest":
            return _nearest(node, x, scales, sizes)
        corners = place == "align_corners"
        return F.interpolate(x, sizes, scales, mode=torch_mode, align_corners=corners)

    return run


def _coordinates(node: Node) -> str:
    default = "asymmetric" if node.op == "Upsample" or node.opset < 11 else "half_pixel"
    return str(node.get("coordinate_transformation_mode", default))


def _exotic(node: Node) -> bool:
    policy = node.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    return policy or bool(node.get("antialias", 0)) or bool(node.get("exclude_outside", 0))


def _targets(node: Node, given: tuple[OnnxArray | None, ...]) -> tuple[list[float] | None, list[int] | None]:
    """Scales, or else sizes, of height and width; only one of both is given."""
    if node.op == "Upsample" or node.opset < 11:
        scales, sizes = setting_of(node, "scales", given[0] if given else None), None
    else:
        scales, sizes = (listed(value) for value in (*given, None, None, None)[1:3])
    if scales:
        return [float(scale) for scale in scales[-2:]], None
    return None, list(sizes or [])[-2:]


def _nearest(node: Node, x: Tensor, scales: list[float] | None, sizes: list[int] | None) -> Tensor:
    into = sizes or [floor(size * scale) for size, scale in zip(x.shape[2:], scales or [], strict=True)]
    ratios = scales or [to / size for size, to in zip(x.shape[2:], into, strict=True)]
    axes = list(zip(x.shape[2:], into, map(np.float32, ratios), strict=True))  # as wide as runtimes compute with
    picks = [_picked(node, *axis) for axis in axes]
    steps = [1 / scale for scale in scales] if scales else [size / to for size, to, _ in axes]
    for mode, shift in (("nearest", 0.0), ("nearest-exact", 0.5)):
        theirs = [_interpolated(size, to, step, shift) for (size, to, _), step in zip(axes, steps, strict=True)]
        if all(np.array_equal(pick, other) for pick, other in zip(picks, theirs, strict=True)):
            return F.interpolate(x, sizes, scales, mode=mode)
    return x[:, :, picks[0].tolist()][:, :, :, picks[1].tolist()]


def _interpolated(size: int, to: int, step: float, shift: float) -> OnnxArray:
    """Which input pixels ``F.interpolate`` takes; where a place is near a pixel's edge, the rounding of it decides."""
    at = (np.arange(to, dtype=np.float32) + np.float32(shift)) * np.float32(step)
    return np.asarray(np.minimum(np.floor(at), size - 1))


def _picked(node: Node, size: int, to: int, ratio: np.float32) -> OnnxArray:
    """Which input pixel each output pixel of one axis is."""
    out, half = np.arange(to, dtype=np.float32), np.float32(0.5)
    place = _coordinates(node)
    at = out * np.float32(0)
    if place in ("half_pixel", "pytorch_half_pixel"):
        at = (out + half) / ratio - half if place == "half_pixel" or to > 1 else at
    elif place == "align_corners":
        at = out * np.float32(size - 1) / np.float32(to - 1) if to > 1 else at
    elif place == "asymmetric":
        at = out / ratio
    else:
        raise UnsupportedError(f"it resizes with {place}")
    rounded = {
        "round_prefer_floor": np.ceil(at - half),
        "round_prefer_ceil": np.floor(at + half),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }
    default = "floor" if node.op == "Upsample" or node.opset < 11 else "round_prefer_floor"
    picked = rounded[node.get("nearest_mode", default)]
    return np.asarray(picked.clip(0, size - 1), np.int64)
