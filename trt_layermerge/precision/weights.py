"""What weights lose to a lower precision, without running anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trt_layermerge.runtimes.base import Array


@dataclass(frozen=True)
class Loss:
    """What weights lose.

    Attributes:
        flushed: Share of those that are not 0 and become 0.
        error: Euclidean norm of the change over that of the weights; infinite where one overflows.
    """

    flushed: float
    error: float


def half_loss(weights: Array) -> Loss:
    """What weights lose as halves."""
    with np.errstate(over="ignore"):
        return _loss(weights, weights.astype(np.float16))


def int8_loss(weights: Array) -> Loss:
    """What weights ``[out, ...]`` lose in INT8 with a scale for each output channel."""
    scale = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / 127
    scale = np.where(scale > 0, scale, 1)
    return _loss(weights, np.rint(weights / scale) * scale)


def _loss(weights: Array, rounded: Array) -> Loss:
    exact = weights.astype(np.float64)
    lost = int(np.count_nonzero((weights != 0) & (rounded == 0)))
    norm = float(np.linalg.norm(exact))
    error = float(np.linalg.norm(rounded - exact)) / max(norm, float(np.finfo(np.float64).tiny))
    return Loss(lost / max(1, int(np.count_nonzero(weights))), error)
