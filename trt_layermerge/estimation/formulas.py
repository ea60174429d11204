"""Milliseconds of GPU work by algorithm, from shapes, a data sheet and constants: arithmetic, and nothing else.

Every function takes the shapes of many convolutions at once and returns ``[rows]`` ms, infinite where the algorithm
does not do the convolution. The roofline's corner is rounded: ``blend(a, b) = (a^3 + b^3)^(1/3)``. Latency is the sum
of the timing mode's overhead and the fastest of the algorithms that the runtime has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.estimation.card import ALGORITHMS, Algorithm, Constants, DeviceSheet
from trt_layermerge.estimation.workload import PRECISION_BYTES, MemoryOperation, Workload

Column = NDArray[np.float64]

GEMM_TILES = ((128, 128), (128, 64), (128, 32), (64, 64), (64, 32))
"""Pixels and channels of a thread block's tile, as in the names of cuDNN's and cuBLAS's FP32 kernels."""

WINOGRAD_BLOCK = 32
"""Tiles, and channels, of a thread block of F(2x2, 3x3)."""

FFT_SIZES = (16, 32)
"""Edge of the tiles whose spectra cuDNN's FFT_TILING multiplies."""

FFT_SETUP_MS = 0.1
SPECTRA_BANDWIDTH = 1.2
"""Spectra are written and read; part of that stays in the cache."""


@dataclass(frozen=True)
class Shapes:
    """Columns of many workloads, ``[rows]`` each, in float64, which holds their products exactly enough."""

    batch: Column
    in_channels: Column
    out_channels: Column
    kernel: tuple[Column, Column]
    stride: tuple[Column, Column]
    padded: tuple[Column, Column]
    output: tuple[Column, Column]
    groups: Column
    input_elements: Column
    added_elements: Column
    dilated: NDArray[np.bool_]
    depthwise: NDArray[np.bool_]
    bytes: Column
    speedup: Column

    @classmethod
    def of(cls, workloads: Sequence[Workload], sheet: DeviceSheet) -> Shapes:
        """The columns of workloads on a card."""
        speedups = {"fp32": 1.0, "fp16": sheet.fp16_speedup, "int8": sheet.int8_speedup}
        rows = [
            (
                one.batch,
                one.in_channels,
                one.out_channels,
                *one.kernel,
                *one.stride,
                one.height + one.padding[0] + one.padding[2],
                one.width + one.padding[1] + one.padding[3],
                *one.output_size,
                one.groups,
                one.batch * one.in_channels * one.height * one.width,
                one.residual * one.batch * one.out_channels * one.pixels,
                one.dilation != (1, 1),
                one.depthwise,
                PRECISION_BYTES[one.precision],
                speedups[one.precision],
            )
            for one in workloads
        ]
        n, c, k, kh, kw, sh, sw, ph, pw, oh, ow, g, inputs, added, dilated, depthwise, size, speedup = (
            np.array(rows, np.float64).reshape(-1, 18).T
        )
        return cls(
            n, c, k, (kh, kw), (sh, sw), (ph, pw), (oh, ow), g, inputs, added, dilated > 0, depthwise > 0, size, speedup
        )

    @property
    def outputs(self) -> Column:
        """Pixels of all images, the rows of the matrix product."""
        return self.batch * self.output[0] * self.output[1]

    @property
    def taps(self) -> Column:
        """Taps of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def dense(self) -> NDArray[np.bool_]:
        """Neither grouped nor dilated: what Winograd and FFT do."""
        return np.asarray((self.groups == 1) & ~self.dilated)


def gpu_ms(shapes: Shapes, sheet: DeviceSheet, constants: Constants) -> dict[Algorithm, Column]:
    """Milliseconds of each algorithm, ``[rows]``; infinite where it does not do the convolution."""
    moved = memory_ms(shapes, sheet, constants)
    found = (
        _implicit_gemm(shapes, sheet, constants, moved),
        _winograd(shapes, sheet, constants, moved),
        _fft(shapes, sheet, constants, moved),
        _depthwise(shapes, sheet, constants, moved),
    )
    return dict(zip(ALGORITHMS, found, strict=True))


def memory_ms(shapes: Shapes, sheet: DeviceSheet, constants: Constants) -> Column:
    """(input + weights) / (B read) + output / (B write): on Turing writes take 1.4 times as long as reads."""
    weights = shapes.out_channels * shapes.in_channels / shapes.groups * shapes.taps
    read = shapes.input_elements + weights + shapes.added_elements
    return _moved(read * shapes.bytes, shapes.outputs * shapes.out_channels * shapes.bytes, sheet, constants)


def operation_ms(operation: MemoryOperation, sheet: DeviceSheet, constants: Constants) -> float:
    """Milliseconds of an operation that is bound by memory."""
    size = PRECISION_BYTES[operation.precision]
    return float(_moved(np.float64(operation.read * size), np.float64(operation.written * size), sheet, constants))


def _moved(read: Column | np.float64, written: Column | np.float64, sheet: DeviceSheet, constants: Constants) -> Column:
    return np.asarray(1e3 / sheet.bandwidth * (read / constants.read + written / constants.write))


def _implicit_gemm(shapes: Shapes, sheet: DeviceSheet, constants: Constants, moved: Column) -> Column:
    """The best tile: whole waves of thread blocks, ``2 tm tn C k^2`` FLOPs each, and what filling a tile costs."""
    depth = _up(shapes.in_channels / shapes.groups * shapes.taps, 8)
    best = np.full_like(moved, np.inf)
    for rows, columns in GEMM_TILES:
        tiles = np.ceil(shapes.outputs / rows) * np.ceil(shapes.out_channels / shapes.groups / columns) * shapes.groups
        waves = np.ceil(tiles / sheet.multiprocessors)
        filling = 1 + 16 * (rows + columns) / (rows * columns)
        best = np.minimum(best, waves * 2 * rows * columns * depth * filling)
    busy = 1e3 * best * sheet.multiprocessors / (sheet.peak * constants.gemm * shapes.speedup)
    return np.where(shapes.depthwise, np.inf, _blend(busy, moved))


def _winograd(shapes: Shapes, sheet: DeviceSheet, constants: Constants, moved: Column) -> Column:
    """F(2x2, 3x3) (Lavin and Gray, arXiv 1509.09308): 16 products a tile; 8 channels more for the transforms."""
    fits = shapes.dense & (shapes.kernel[0] == 3) & (shapes.kernel[1] == 3)
    fits &= (shapes.stride[0] == 1) & (shapes.stride[1] == 1)
    tiles = shapes.batch * np.ceil(shapes.output[0] / 2) * np.ceil(shapes.output[1] / 2)
    blocks = np.ceil(tiles / WINOGRAD_BLOCK) * np.ceil(shapes.out_channels / WINOGRAD_BLOCK)
    whole = np.ceil(blocks / sheet.multiprocessors) * sheet.multiprocessors
    flops = whole * 16 * 2 * WINOGRAD_BLOCK**2 * (_up(shapes.in_channels, 8) + 8)
    busy = 1e3 * flops / (sheet.peak * constants.winograd * shapes.speedup)
    return np.where(fits, _blend(busy, moved), np.inf)


def _fft(shapes: Shapes, sheet: DeviceSheet, constants: Constants, moved: Column) -> Column:
    """Tiles of 16x16 or 32x32 pixels (Mathieu et al., arXiv 1312.5851); a stride is thrown away at the end.

    A spectrum of L x L real pixels has L (L/2 + 1) complex numbers, products of two of which are 8 FLOPs.
    """
    best = np.full_like(moved, np.inf)
    for edge in FFT_SIZES:
        useful = [edge - kernel + 1 for kernel in shapes.kernel]
        fits = shapes.dense & (np.minimum(*shapes.kernel) >= 3) & (np.minimum(*useful) >= 1)
        tiles = np.ones_like(moved)
        for padded, kernel, width in zip(shapes.padded, shapes.kernel, useful, strict=True):
            tiles = tiles * np.ceil((padded - kernel + 1) / np.maximum(width, 1))
        numbers = edge * (edge / 2 + 1)
        images, channels = shapes.batch * tiles, shapes.in_channels + shapes.out_channels
        flops = 8 * _up(shapes.batch, 32) * tiles * _up(shapes.out_channels, 32) * (shapes.in_channels + 8) * numbers
        spectra = 2 * 8 * numbers * (images * channels + shapes.in_channels * shapes.out_channels)
        busy = flops / (sheet.peak * constants.fft * shapes.speedup)
        time = 1e3 * (busy + spectra / (sheet.bandwidth * SPECTRA_BANDWIDTH)) + moved + FFT_SETUP_MS
        best = np.where(fits, np.minimum(best, time), best)
    return best


def _depthwise(shapes: Shapes, sheet: DeviceSheet, constants: Constants, moved: Column) -> Column:
    """Bound by memory or by its few FLOPs, and something for every plane of an image and a channel."""
    flops = 2 * shapes.outputs * shapes.out_channels * shapes.taps
    busy = 1e3 * flops / (sheet.peak * constants.depthwise * shapes.speedup)
    planes = constants.plane_ms * np.sqrt(shapes.batch * shapes.in_channels)
    return np.where(shapes.depthwise, _blend(busy, moved) + planes, np.inf)


def _blend(a: Column, b: Column) -> Column:
    return np.asarray(np.cbrt(a**3 + b**3))


def _up(value: Column, multiple: int) -> Column:
    return np.asarray(np.ceil(value / multiple) * multiple)
