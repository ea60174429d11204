"""Average pooling as a convolution: depthwise, with weights that are all the same.

It is one only where every window is divided by the same number: where padding counts, or there is none.
"""

from __future__ import annotations

from torch import nn

from trt_layermerge.network.geometry import Geometry, Pair


def pooling_geometry(pool: nn.AvgPool2d, channels: int) -> Geometry:
    """The geometry of the depthwise convolution that a pooling of so many channels is."""
    rows, columns = _pair(pool.padding)
    return Geometry(
        channels,
        channels,
        _pair(pool.kernel_size),
        _pair(pool.stride),
        (rows, columns, rows, columns),
        groups=channels,
    )


def pooling_weight(pool: nn.AvgPool2d) -> float:
    """Each of its weights."""
    height, width = _pair(pool.kernel_size)
    return 1 / (pool.divisor_override or height * width)


def why_no_convolution(pool: nn.AvgPool2d, input_size: Pair, output_size: Pair) -> str | None:
    """Why a pooling of this input is no convolution, in words; ``None`` if it is one."""
    geometry = pooling_geometry(pool, 1)
    if any(geometry.padding) and not pool.count_include_pad and pool.divisor_override is None:
        return "average pooling that leaves its padding out of the average: weights differ at the border"
    if geometry.output_size(input_size) != output_size:
        return "average pooling whose last windows are cut off (ceil_mode): weights differ at the border"
    return None


def _pair(value: int | tuple[int, int] | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
