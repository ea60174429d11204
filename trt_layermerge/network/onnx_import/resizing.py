"""Resizing, as ONNX defines it: ``Resize`` and ``Upsample``.

What PyTorch has is its own function. Everything else is linear in the image all the same, and one matrix for each axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.network.onnx_import.layers import UnsupportedError
from trt_layermerge.network.onnx_import.onnx_graph import Node, OnnxArray
from trt_layermerge.network.onnx_import.sizes import OnnxFunction, listed, setting_of

_PLACES_OF_TORCH = ("half_pixel", "pytorch_half_pixel", "align_corners")
_REACHES = {"linear": 1, "cubic": 2}
"""How many pixels to each side a mode takes into account."""


@dataclass(frozen=True)
class _Axis:
    """What happens to one axis.

    Attributes:
        number: Which one.
        size: What it has.
        to: What it will have.
        scale: Given, or the ratio of both.
    """

    number: int
    size: int
    to: int
    scale: float


def resize(node: Node) -> OnnxFunction:
    """``Resize`` and ``Upsample``.

    1. Nearest neighbours are those of ONNX, whatever its rounding: where PyTorch's differ, they are picked one by one.
    2. Linear and cubic are PyTorch's where it has the same, and products with matrices of coefficients elsewhere.
    """
    mode, place = node.get("mode", "nearest"), _coordinates(node)
    if place not in _PLACES:
        raise UnsupportedError(f"it resizes with {place}")
    if mode not in ("nearest", *_REACHES):
        raise UnsupportedError(f"it resizes by {mode}")
    odd = any(node.get(name, usual) != usual for name, usual in _USUAL.items())

    def run(x: Tensor, *given: OnnxArray | None) -> Tensor:
        axes, by_scale = _axes(node, x, given)
        if mode == "nearest":
            return _nearest(node, x, axes, by_scale=by_scale)
        if odd or place not in _PLACES_OF_TORCH or x.dim() != 4:
            return _by_matrices(node, x, axes)
        scales, sizes = _for_torch(axes, by_scale=by_scale)
        torch_mode = {"linear": "bilinear", "cubic": "bicubic"}[mode]
        return F.interpolate(x, sizes, scales, mode=torch_mode, align_corners=place == "align_corners")

    return run


_USUAL = {"keep_aspect_ratio_policy": "stretch", "antialias": 0, "exclude_outside": 0, "cubic_coeff_a": -0.75}


def _coordinates(node: Node) -> str:
    default = "asymmetric" if node.op == "Upsample" or node.opset < 11 else "half_pixel"
    return str(node.get("coordinate_transformation_mode", default))


def _axes(node: Node, x: Tensor, given: tuple[OnnxArray | None, ...]) -> tuple[list[_Axis], bool]:
    """All axes behind the channels, and whether scales are given; else sizes are."""
    if node.op == "Upsample" or node.opset < 11:
        scales, sizes = setting_of(node, "scales", given[0] if given else None), None
    else:
        scales, sizes = (listed(value) for value in (*given, None, None, None)[1:3])
    numbers = [axis % x.dim() for axis in node.get("axes") or range(x.dim())]
    told = dict(zip(numbers, scales or sizes or [], strict=True))
    if told.get(1, 1 if scales else x.shape[1]) != (1 if scales else x.shape[1]) or (scales and told.get(0, 1) != 1):
        raise UnsupportedError("it resizes more than what lies behind the channels")
    own = {axis: x.shape[axis] for axis in range(2, x.dim())}
    if scales:
        factors = {axis: float(told.get(axis, 1.0)) for axis in own}
        return [_Axis(axis, size, floor(size * factors[axis]), factors[axis]) for axis, size in own.items()], True
    wanted = {axis: int(told.get(axis, size)) for axis, size in own.items()}
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        choose = min if policy == "not_larger" else max
        scale = choose(wanted[axis] / own[axis] for axis in own if axis in told)
        return [
            _Axis(axis, size, floor(size * scale + 0.5), scale) if axis in told else _Axis(axis, size, size, 1.0)
            for axis, size in own.items()
        ], False
    return [_Axis(axis, size, wanted[axis], wanted[axis] / size) for axis, size in own.items()], False


def _for_torch(axes: list[_Axis], *, by_scale: bool) -> tuple[list[float] | None, list[int] | None]:
    """Scales, or else sizes: ``F.interpolate`` takes one of both."""
    return ([axis.scale for axis in axes], None) if by_scale else (None, [axis.to for axis in axes])


def _nearest(node: Node, x: Tensor, axes: list[_Axis], *, by_scale: bool) -> Tensor:
    picks = [_picked(node, axis) for axis in axes]
    scales, sizes = _for_torch(axes, by_scale=by_scale)
    for mode, shift in (("nearest", 0.0), ("nearest-exact", 0.5)):
        theirs = [_interpolated(axis, 1 / axis.scale if by_scale else axis.size / axis.to, shift) for axis in axes]
        if all(np.array_equal(pick, other) for pick, other in zip(picks, theirs, strict=True)):
            return F.interpolate(x, sizes, scales, mode=mode)
    for axis, pick in zip(axes, picks, strict=True):
        x = x[(slice(None),) * axis.number + (pick.tolist(),)]
    return x


def _interpolated(axis: _Axis, step: float, shift: float) -> OnnxArray:
    """Which input pixels ``F.interpolate`` takes; where a place is near a pixel's edge, the rounding of it decides."""
    at = (np.arange(axis.to, dtype=np.float32) + np.float32(shift)) * np.float32(step)
    return np.asarray(np.minimum(np.floor(at), axis.size - 1))


def _picked(node: Node, axis: _Axis) -> OnnxArray:
    """Which input pixel each output pixel of one axis is."""
    at = _places(node, axis, np.float32)  # as wide as runtimes compute with
    half = np.float32(0.5)
    rounded = {
        "round_prefer_floor": np.ceil(at - half),
        "round_prefer_ceil": np.floor(at + half),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }
    default = "floor" if node.op == "Upsample" or node.opset < 11 else "round_prefer_floor"
    picked = rounded[node.get("nearest_mode", default)]
    return np.asarray(picked.clip(0, axis.size - 1), np.int64)


_PLACES: dict[str, Any] = {
    "half_pixel": lambda i, size, to, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, size, to, scale: (i + 0.5) / scale - 0.5 if len(i) > 1 else i * 0,
    "half_pixel_symmetric": lambda i, size, to, scale: size / 2 * (1 - to / (scale * size)) + (i + 0.5) / scale - 0.5,
    "align_corners": lambda i, size, to, scale: i * (size - 1) / (to - 1) if len(i) > 1 else i * 0,
    "asymmetric": lambda i, size, to, scale: i / scale,
    "tf_half_pixel_for_nn": lambda i, size, to, scale: (i + 0.5) / scale,
}
"""Where the output pixels ``i`` lie in the input."""


def _places(node: Node, axis: _Axis, width: type[np.floating[Any]]) -> OnnxArray:
    numbers = map(width, (axis.size, axis.to, axis.scale))
    return np.asarray(_PLACES[_coordinates(node)](np.arange(axis.to, dtype=width), *numbers), width)


def _by_matrices(node: Node, x: Tensor, axes: list[_Axis]) -> Tensor:
    for axis in axes:
        if (axis.to, axis.scale) != (axis.size, 1.0):
            matrix = torch.from_numpy(_coefficients(node, axis)).to(x)
            x = (x.movedim(axis.number, -1) @ matrix.T).movedim(-1, axis.number)
    return x


def _coefficients(node: Node, axis: _Axis) -> OnnxArray:
    """Matrix ``[to, size]`` of linear or cubic interpolation.

    Pixels beyond the border are those at it; with ``exclude_outside`` they do not count at all.
    """
    at, mode = _places(node, axis, np.float64), node.get("mode")
    antialias = bool(node.get("antialias", 0))
    squeezed = min(axis.scale, 1.0) if antialias else 1.0
    reach = ceil(_REACHES[mode] / squeezed)
    taps = np.floor(at)[:, None] + np.arange(1 - reach, reach + 1)
    weights = _kernel(mode, (taps - at[:, None]) * squeezed, node.get("cubic_coeff_a", -0.75))
    if node.get("exclude_outside", 0):
        weights = np.where((taps >= 0) & (taps < axis.size), weights, 0.0)
    weights /= weights.sum(1, keepdims=True)
    matrix = np.zeros((axis.to, axis.size))
    rows = np.broadcast_to(np.arange(axis.to)[:, None], taps.shape)
    np.add.at(matrix, (rows, taps.clip(0, axis.size - 1).astype(np.int64)), weights)
    return matrix.astype(np.float32)


def _kernel(mode: str, distance: OnnxArray, a: float) -> OnnxArray:
    """Weight of a pixel at a distance: a hat, or Keys' cubic convolution (1981) with ``a``."""
    d = np.abs(distance)
    if mode == "linear":
        return np.asarray(np.maximum(0.0, 1 - d))
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
