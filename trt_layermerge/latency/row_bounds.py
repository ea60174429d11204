"""Within which latencies operations lie that were not measured, judged by those that were.

The logarithm of a latency is taken as a Gaussian process over the logarithms of shapes: a linear trend, as work and
traffic make it, and smooth deviations from it (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006,
chapters 2 and 5). Where there is an estimate of the device, the process is of what was measured over what is estimated.
An interval is so wide that it would have held every row that was measured, each left out in its turn; that is
experience, and no proof: nothing that was not measured is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, exp, log, log1p, prod

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.profile import ProfileRow

Floats = NDArray[np.float64]
Prior = Callable[[Signature], float | None]
"""An estimate of an operation's latency on the device, in ns; ``None`` where there is none."""

FEWEST = 8
"""Measured rows that a process is fitted to; with fewer, nothing is known but that latencies are not negative."""

MOST = 600
"""Measured rows that a process is fitted to; its cost grows with their third power."""

_LONGEST = log(1e12)
"""A quarter of an hour, in ns: of a trend that leads so far no more is to be known."""

_LEAST_WIDTH = 3.0
"""Half-width of an interval in standard deviations, if no row that was measured asks for more."""

_TRENDS, _DEVIATIONS = (0.05, 0.3, 1.0), (0.03, 0.1, 0.3, 1.0)
_LENGTHS, _NOISES = (1.0, 2.0, 4.0), (0.02, 0.05)
"""What the most likely process is looked for among: amplitudes, lengths of deviations, and noise, in logarithms."""


@dataclass(frozen=True)
class RowBound:
    """What is expected of an operation, in ns.

    Attributes:
        low_ns: Lower end of the interval; 0 where nothing is known.
        likely_ns: Within it; 0 where nothing is known.
    """

    low_ns: int
    likely_ns: int


def bound_rows(
    known: Iterable[ProfileRow], unknown: Sequence[Signature], prior: Prior | None = None
) -> dict[str, RowBound]:
    """Bounds of operations that were not measured, by their keys.

    Args:
        known: Rows of the same profile; those of gaps and those that failed say nothing.
        unknown: The operations.
        prior: An estimate of the device, where there is one.
    """
    expected = {one: 1.0 if prior is None else prior(one) for one in unknown}
    ratios: dict[Signature, float] = {}
    for row in known:
        one = row.signature
        if not isinstance(one, Signature) or row.timing is None or not row.timing.median_ns:
            continue
        if estimate := 1.0 if prior is None else prior(one):
            ratios[one] = log(row.timing.median_ns / estimate)
    found = {one.key: RowBound(0, 0) for one in unknown}
    asked = [one for one, estimate in expected.items() if estimate]
    if not asked or len(ratios) < FEWEST:
        return found
    chosen = np.unique(np.linspace(0, len(ratios) - 1, min(len(ratios), MOST)).round().astype(int))
    rows = [list(ratios)[number] for number in chosen]
    about = _features([*rows, *asked])
    middle, spread = _process(about[: len(rows)], np.array([ratios[one] for one in rows]), about[len(rows) :])
    for one, m, s in zip(asked, middle.tolist(), spread.tolist(), strict=True):
        estimate = expected[one] or 0.0
        low, likely = (estimate * exp(min(power, _LONGEST)) for power in (m - s, m))
        found[one.key] = RowBound(int(low), ceil(likely))
    return found


def _features(signatures: Sequence[Signature]) -> Floats:
    """Logarithms of what latency depends on, and of what kind an operation is; ``[signatures, features]``."""
    activations = sorted({str(one.activation) for one in signatures})
    return np.array([_features_of(one, activations) for one in signatures], np.float64)


def _features_of(one: Signature, activations: Sequence[str]) -> list[float]:
    c = one.convolution
    kernel, stride, groups = (1, 1, 1) if c is None else (prod(c.kernel), prod(c.stride), c.groups)
    depthwise = c is not None and groups == c.in_channels > 1
    kinds = {
        "convolution": c is not None and not one.pooling,
        "pooling": one.pooling,
        "depthwise": depthwise,
        "pointwise": kernel == 1,
        "winograd": kernel == 9 and stride == 1 and groups == 1,  # has algorithms of its own
        "residual": one.residual,
        "shift": one.shift,
        "norm": one.group_norm is not None,
    }
    sizes = [
        log1p(one.batch * one.macs),
        log(one.batch * prod(one.input_shape)),
        log(one.batch * prod(one.output_shape)),
        log(one.input_shape[0] / groups),
        log(one.output_shape[0]),
        log(kernel),
        log(stride),
    ]
    return [*sizes, *map(float, kinds.values()), *(0.5 * (str(one.activation) == name) for name in activations)]


def _process(known: Floats, values: Floats, unknown: Floats) -> tuple[Floats, Floats]:
    """Means and half-widths of intervals at ``unknown``, in logarithms; the most likely of the processes."""
    centre = known.mean(axis=0)
    inner, outer, apart, across = (
        (known - centre) @ (known - centre).T,
        (unknown - centre) @ (known - centre).T,
        _distances(known, known),
        _distances(unknown, known),
    )
    mean = float(values.mean())
    found: tuple[float, dict[str, float], Floats] | None = None
    for trend, deviation, length, noise in product(_TRENDS, _DEVIATIONS, _LENGTHS, _NOISES):
        said = {"trend": trend, "deviation": deviation, "length": length}
        covariance = _covariance(inner, apart, **said) + noise**2 * np.eye(len(values))
        factor = np.linalg.cholesky(covariance)
        solved = np.linalg.solve(factor, values - mean)
        likelihood = -0.5 * float(solved @ solved) - float(np.log(np.diag(factor)).sum())
        if found is None or likelihood > found[0]:
            found = likelihood, said, covariance
    assert found is not None
    _, said, covariance = found
    inverse = np.linalg.inv(covariance)
    weights = inverse @ (values - mean)
    left_out = np.abs(weights) / np.sqrt(np.diag(inverse))  # errors of each row left out, in standard deviations
    width = max(_LEAST_WIDTH, float(left_out.max())) * (1 + 1 / np.sqrt(len(values)))
    cross = _covariance(outer, across, **said)
    own = _covariance(((unknown - centre) ** 2).sum(axis=1), np.zeros(len(unknown)), **said)
    variance = np.maximum(own - np.einsum("ij,jk,ik->i", cross, inverse, cross), 0.0)
    return mean + cross @ weights, width * np.sqrt(variance + min(_NOISES) ** 2)


def _covariance(inner: Floats, squared: Floats, trend: float, deviation: float, length: float) -> Floats:
    """Of a constant, a linear trend and smooth deviations, from inner products and squared distances."""
    found: Floats = 1.0 + trend**2 * inner + deviation**2 * np.exp(-squared / (2 * length**2))
    return found


def _distances(a: Floats, b: Floats) -> Floats:
    """Squared distances, ``[a, b]``."""
    found: Floats = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    return found
