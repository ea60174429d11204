"""Intervals of layers without activations between them: how fast each can be run, and what each is worth.

The tables of depth compression (ICML 2023, arXiv 2301.12187), for one chain; ``methods.depth`` plans with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Span = tuple[int, int]
NEVER = 2**61  # ns; the sum of two still fits into int64


@dataclass(frozen=True, slots=True)
class Interval:
    """Layers that no activation divides any more, in their fastest arrangement.

    Attributes:
        start: The layers are those of (start, end].
        end: Last layer.
        latency_ns: Least latency in ns.
        breaks: Where convolutions begin and end, from start to end: (0, 1, 4) is layer 1, and layers 2 to 4 merged.
    """

    start: int
    end: int
    latency_ns: int
    breaks: tuple[int, ...]


def fastest(length: int, latencies: Mapping[Span, int]) -> dict[Span, Interval]:
    """Stage one: the fastest way to run each interval of layers when no activation inside it is left.

    T_opt[i, j] = min over i <= m < j of T_opt[i, m] + T[m, j], with T_opt[i, i] = 0 and T[m, j] the latency of
    layers m + 1 to j merged into one convolution (arXiv 2301.12187, first stage). Of equal ones the last merge is
    the longest, which is our choice.

    Args:
        length: Number of layers of the chain.
        latencies: Latency in ns of each block that can be merged, single layers included.

    Returns:
        The intervals that can be run at all, by start and end.
    """
    merged = np.full((length + 1, length + 1), NEVER, np.int64)  # [end, start]: rows are read as a whole
    for (start, end), latency in latencies.items():
        merged[end, start] = latency
    best = np.full((length + 1, length + 1), NEVER, np.int64)
    last = np.zeros((length + 1, length + 1), np.int64)
    for start in range(length):
        best[start, start] = 0
        for end in range(start + 1, length + 1):
            through = best[start, start:end] + merged[end, start:end]
            where = int(through.argmin())
            if through[where] < NEVER:
                best[start, end], last[start, end] = through[where], start + where
    return {block: Interval(*block, int(best[block]), _breaks(last, *block)) for block in _below(best, length)}


def _below(best: np.ndarray[tuple[int, int], np.dtype[np.int64]], length: int) -> Iterator[Span]:
    blocks = ((start, end) for start in range(length) for end in range(start + 1, length + 1))
    return (block for block in blocks if best[block] < NEVER)


def _breaks(last: np.ndarray[tuple[int, int], np.dtype[np.int64]], start: int, end: int) -> tuple[int, ...]:
    breaks = [end]
    while breaks[-1] > start:
        breaks.append(int(last[start, breaks[-1]]))
    return tuple(reversed(breaks))


def extended(length: int, importance: Mapping[tuple[int, int, bool, bool], float]) -> dict[Span, float]:
    """I_ext: importance of each interval between two activations that stay.

    I_ext[i, j, a, b] = max( I[i, j, a, b], max over i < m < j of I_ext[i, m, a, 0] + I[m, j, 0, b] )

    with a and b saying whether the activations after layers i and j are there; of it, I_ext[i, j, 1, 1]. What lies
    before the first layer and after the last one is not for the method to remove: there either flag will do.

    Args:
        length: Number of layers of the chain.
        importance: I by start, end, a and b; what was not measured is not there.
    """
    flat = np.full((2, 2, length + 1, length + 1), -np.inf)  # [a, b, end, start]
    for (start, end, a, b), value in importance.items():
        for left in (0, 1) if start == 0 else (int(a),):
            for right in (0, 1) if end == length else (int(b),):
                flat[left, right, end, start] = max(flat[left, right, end, start], value)
    result: dict[Span, float] = {}
    for start in range(length):
        open_end = np.full(length + 1, -np.inf)  # I_ext[start, m, 1, 0]
        for end in range(start + 1, length + 1):
            inner = open_end[start + 1 : end]
            for right in (0, 1):
                through = inner + flat[0, right, end, start + 1 : end]
                value = max(flat[1, right, end, start], float(through.max(initial=-np.inf)))
                if right == 0:
                    open_end[end] = value
            if value > -math.inf:
                result[start, end] = float(value)
    return result
