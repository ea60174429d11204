"""Robust non-linear least squares, small: a handful of parameters, numerical derivatives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_STEP = 1e-4
_ROUNDS = 200
_ENOUGH = 1e-9
_LARGEST_DAMPING = 1e8


def soft_l1(residuals: Vector, scale: float) -> Vector:
    """``2 s^2 (sqrt(1 + (r / s)^2) - 1)``: a square near 0, a straight line far from it."""
    return np.asarray(2 * scale**2 * (np.sqrt(1 + (residuals / scale) ** 2) - 1))


def least_squares(residuals: Callable[[Vector], Vector], start: Vector, scale: float, pull: float = 0.0) -> Vector:
    """Minimise the sum of ``soft_l1(residuals(x))`` plus ``pull (x - start)^2``.

    Levenberg and Marquardt's steps on weights that are set again before each (Holland and Welsch's iteratively
    reweighted least squares): a step is taken only if it lowers the sum, so kinks of the residuals do no harm.

    Args:
        residuals: ``[rows]`` of a parameter vector.
        start: ``[parameters]``.
        scale: Residual at which squares turn into straight lines.
        pull: Weight of the distance from ``start``, 0 for none.

    Returns:
        The parameters, ``[parameters]``; at least as good as ``start``.
    """
    x, damping = start.copy(), 1e-3
    current = residuals(x)

    def cost(r: Vector, at: Vector) -> float:
        return float(soft_l1(r, scale).sum() + pull * ((at - start) ** 2).sum())

    best = cost(current, x)
    for _ in range(_ROUNDS):
        slopes = np.stack([(residuals(x + step) - current) / _STEP for step in _STEP * np.eye(len(x))], axis=1)
        weights = 1 / np.sqrt(1 + (current / scale) ** 2)
        normal = slopes.T @ (weights[:, None] * slopes) + pull * np.eye(len(x))
        gradient = slopes.T @ (weights * current) + pull * (x - start)
        before = best
        while damping < _LARGEST_DAMPING:
            # A parameter that no row depends on has an empty line here, and is to stay where it is.
            scaled = normal + damping * np.diag(np.maximum(np.diag(normal), 1e-12))
            moved = x - np.linalg.solve(scaled, gradient)
            tried = residuals(moved)
            if (now := cost(tried, moved)) < best:
                x, current, best, damping = moved, tried, now, max(damping / 10, 1e-9)
                break
            damping *= 10
        if before - best <= _ENOUGH * before:
            break
    return x
