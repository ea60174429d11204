"""Forty signatures that tell of a device what its estimates rest on: the shapes by which constants are fitted.

Dense and depthwise convolutions of every kernel size that plans have, from large images of few channels to small ones
of many; strides, the two ends of inverted residuals, and residual additions. Batch 8, with ReLU.
"""

from __future__ import annotations

from collections.abc import Iterator

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.geometry import Geometry

BATCH = 8
_DENSE = ((32, 56), (64, 28), (128, 14), (256, 7))
_DEPTHWISE = ((96, 56), (192, 28), (384, 14), (960, 7))
_POINTWISE = ((24, 144, 56), (144, 24, 56), (96, 576, 14), (576, 96, 14), (320, 1280, 7))


def standard_signatures(precision: str) -> tuple[Signature, ...]:
    """The signatures, each once, in a precision."""
    return tuple(_signatures(precision))


def _signatures(precision: str) -> Iterator[Signature]:
    def one(inputs: int, outputs: int, size: int, kernel: int, **more: int | bool) -> Signature:
        stride, groups = int(more.get("stride", 1)), int(more.get("groups", 1))
        padding = (kernel // 2,) * 4
        geometry = Geometry(inputs, outputs, (kernel, kernel), (stride, stride), padding, groups=groups)
        residual = bool(more.get("residual", False))
        return Signature(BATCH, (inputs, size, size), geometry, True, residual, "relu", precision)

    for channels, size in _DENSE:
        yield from (one(channels, channels, size, kernel) for kernel in (1, 3, 5, 7))
        yield one(channels, channels, size, 3, stride=2)
    for channels, size in _DEPTHWISE:
        yield from (one(channels, channels, size, kernel, groups=channels) for kernel in (3, 5, 7))
    yield from (one(inputs, outputs, size, 1) for inputs, outputs, size in _POINTWISE)
    yield from (one(channels, channels, size, 3, residual=True) for channels, size in _DENSE[1:])
