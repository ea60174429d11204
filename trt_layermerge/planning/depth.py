"""The method ``depth``: which activations to remove, and, between those that stay, where to merge; in two stages.

Kim, Jeong, Lee and Song, "Efficient Latency-Aware CNN Depth Compression via Two-Stage Dynamic Programming", ICML 2023,
arXiv 2301.12187. ``Depth`` says what is the paper's and what is our reading of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trt_layermerge.errors import InputError
from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.path import Floats
from trt_layermerge.planning.problem import LONGEST_NS, Item, Problem

Block = tuple[int, int]
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


def fastest(length: int, latencies: Mapping[Block, int]) -> dict[Block, Interval]:
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


def _below(best: np.ndarray[tuple[int, int], np.dtype[np.int64]], length: int) -> Iterator[Block]:
    blocks = ((start, end) for start in range(length) for end in range(start + 1, length + 1))
    return (block for block in blocks if best[block] < NEVER)


def _breaks(last: np.ndarray[tuple[int, int], np.dtype[np.int64]], start: int, end: int) -> tuple[int, ...]:
    breaks = [end]
    while breaks[-1] > start:
        breaks.append(int(last[start, breaks[-1]]))
    return tuple(reversed(breaks))


def extended(length: int, importance: Mapping[tuple[int, int, bool, bool], float]) -> dict[Block, float]:
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
    result: dict[Block, float] = {}
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


@dataclass(frozen=True)
class Depth:
    """Depth compression: removes activations only, in two stages (ICML 2023, arXiv 2301.12187).

    Stage one finds T_opt[i, j], the least latency of layers i + 1 to j once all activations between them are
    gone, with the breaks of its merges (``fastest``). Stage two picks the activations that stay:

        D[l, t] = max over k with T_opt[k, l] <= t of D[k, t - T_opt[k, l]] + I_ext[k, l],  D[0, t] = 0

    and is solved for all t at once by ``frontier``: each (k, l] is one item of the problem.

    That the method replaces a subset of activations by identities, merges the rest optimally, and does so by an
    exact two-stage dynamic program over a surrogate, is the paper's abstract. The rest is our reading:

    - Flags. Where the network has no activation between two blocks, or where one was removed, a block is measured
      with that boundary open (flag 0). T_opt may merge across an open boundary, so the second stage joins such blocks
      (``extended``) before it looks for what to keep.
    - Normalisation. Every measured importance is lowered by ``alpha`` times the mean importance of the single
      layers, over all rows of single layers whatever their flags. These change nothing, so their mean is what a bit of
      training brings by itself, which a plan of many blocks would count many times. 0, our default, takes importances
      as they are; where ``keep`` is measured as no change at all, alpha makes no difference.

    A single layer is ``keep``; a block of more layers is the ``merge`` that drops no convolution; fits and identities
    are not of this method. A plan's item that runs in several parts names them in ``Item.breaks`` and ``Item.parts``.

    Attributes:
        alpha: Weight of the mean of the single layers.
    """

    alpha: float = 0.0

    @property
    def name(self) -> str:
        """``depth``."""
        return "depth"

    def problem(
        self, lengths: Sequence[int], candidates: Iterable[Candidate], fixed_ns: int, original_ns: int
    ) -> Problem:
        """One item for each interval that can be run and is measured; see ``Method``.

        Raises:
            InputError: A ``merge`` does not say how many convolutions it drops, two candidates are one to this
                method, or what ``Problem`` refuses.
        """
        admitted = [one for one in candidates if _in_depth(one)]
        for one in admitted:
            _check(one, lengths)
        items = [item for chain, length in enumerate(lengths) for item in self._items(chain, length, admitted)]
        return Problem(tuple(lengths), tuple(items), fixed_ns, original_ns, self.name)

    def _items(self, chain: int, length: int, admitted: Sequence[Candidate]) -> Iterator[Item]:
        mine = [one for one in admitted if one.chain == chain]
        worth: dict[tuple[int, int, bool, bool], float] = {}
        merges: dict[Block, Candidate] = {}
        values = self._normalised([_value(one) for one in mine], mine)
        for one, value in zip(mine, values, strict=True):
            state = one.start, one.end, one.start_activation, one.end_activation
            if state in worth:
                raise InputError(f"{_describe(one)}: there is another of the same block, with the same activations")
            worth[state] = float(value)
            merge = merges.setdefault((one.start, one.end), one)
            if merge.latency_ns != one.latency_ns:
                raise InputError(f"{_describe(one)}: its latency is not that of {merge.key!r}, the same convolution")
        intervals = fastest(length, {block: merge.latency_ns for block, merge in merges.items()})
        for block, value in extended(length, worth).items():
            if block in intervals:
                yield _item(chain, intervals[block], merges, value)

    def _normalised(self, values: Sequence[float], candidates: Sequence[Candidate]) -> Floats:
        column = np.array(values, np.float64)
        single = np.array([one.end == one.start + 1 for one in candidates], np.bool_)
        if self.alpha == 0 or not single.any():
            return column
        lowered: Floats = column - self.alpha * column[single].mean()
        return lowered


def _in_depth(one: Candidate) -> bool:
    if one.kind == "merge" and one.dropped is None:
        raise InputError(
            f"{_describe(one)}: it does not say how many convolutions it drops, and method depth drops none",
            hint="another method can do without it: joint, layermerge, layer-only",
        )
    return one.kind == "keep" or (one.kind == "merge" and one.dropped == 0)


def _check(one: Candidate, lengths: Sequence[int]) -> None:
    if not (0 <= one.chain < len(lengths) and 0 <= one.start < one.end <= lengths[one.chain]):
        raise InputError(f"{_describe(one)}: it lies outside of the chains, which have {list(lengths)} layers")
    if not 0 <= one.latency_ns <= LONGEST_NS:
        raise InputError(f"{_describe(one)}: latency {one.latency_ns} ns is not between 0 and eleven days")
    if not math.isfinite(_value(one)):
        raise InputError(f"{_describe(one)}: value {_value(one)} is not finite")


def _value(one: Candidate) -> float:
    return one.gain if one.importance is None else one.importance


def _item(chain: int, interval: Interval, merges: Mapping[Block, Candidate], value: float) -> Item:
    parts = [merges[block] for block in zip(interval.breaks, interval.breaks[1:], strict=False)]
    if len(parts) == 1:
        return parts[0].item(value)
    lows = [part.latency_ns if part.low_ns is None else part.low_ns for part in parts]
    highs = [part.latency_ns if part.high_ns is None else part.high_ns for part in parts]
    known = any(part.low_ns is not None for part in parts)
    low, high = _joined(interval.latency_ns, lows, highs, parts) if known else (None, None)
    keys = tuple(part.key for part in parts)
    return Item(
        chain,
        interval.start,
        interval.end,
        " + ".join(keys),
        "merge",
        interval.latency_ns,
        value,
        low,
        high,
        breaks=interval.breaks[1:-1],
        parts=keys,
    )


def _joined(latency_ns: int, lows: Sequence[int], highs: Sequence[int], parts: Sequence[Candidate]) -> tuple[int, int]:
    """Interval of a sum of parts that were measured independently of each other: half-widths add as squares."""
    below = math.hypot(*(part.latency_ns - low for part, low in zip(parts, lows, strict=True)))
    above = math.hypot(*(high - part.latency_ns for part, high in zip(parts, highs, strict=True)))
    return max(0, math.floor(latency_ns - below)), math.ceil(latency_ns + above)


def _describe(one: Candidate) -> str:
    return f"candidate {one.key!r} of block ({one.start}, {one.end}] in chain {one.chain}"
