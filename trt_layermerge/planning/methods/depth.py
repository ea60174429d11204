"""The method ``depth``: which activations to remove, and, between those that stay, where to merge; in two stages.

Kim, Jeong, Lee and Song, "Efficient Latency-Aware CNN Depth Compression via Two-Stage Dynamic Programming", ICML 2023,
arXiv 2301.12187. ``Depth`` says what is the paper's and what is our reading of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trt_layermerge.errors import InputError
from trt_layermerge.planning.candidate import Candidate, MeasuredGroup
from trt_layermerge.planning.intervals import Interval, Span, extended, fastest
from trt_layermerge.planning.methods.base import ChoiceTraits, TwoStage, at_widths, method_setting
from trt_layermerge.planning.problem import Item, Problem, check_timed, describe
from trt_layermerge.planning.states import Floats


@dataclass(frozen=True)
class Depth(TwoStage):
    """Depth compression: removes activations only, in two stages (ICML 2023, arXiv 2301.12187).

    Stage one finds T_opt[i, j], the least latency of layers i + 1 to j once all activations between them are
    gone, with the breaks of its merges (``intervals.fastest``). Stage two picks the activations that stay:

        D[l, t] = max over k with T_opt[k, l] <= t of D[k, t - T_opt[k, l]] + I_ext[k, l],  D[0, t] = 0

    and is solved for all t at once by ``frontier``: each (k, l] is one item of the problem.

    That the method replaces a subset of activations by identities, merges the rest optimally, and does so by an
    exact two-stage dynamic program over a surrogate, is the paper's abstract. The rest is our reading:

    - Flags. Where the network has no activation between two blocks, or where one was removed, a block is measured
      with that boundary open (flag 0). T_opt may merge across an open boundary, so the second stage joins such blocks
      (``intervals.extended``) before it looks for what to keep.
    - Normalisation. Every measured importance is lowered by ``alpha`` times the mean importance of the single
      layers, over all rows of single layers whatever their flags. These change nothing, so their mean is what a bit of
      training brings by itself, which a plan of many blocks would count many times. 0, our default, takes importances
      as they are; where ``keep`` is measured as no change at all, alpha makes no difference.

    A single layer is ``keep``; a block of more layers is the ``merge`` that drops no convolution; fits and identities
    are not of this method. A plan's item that runs in several parts names them in ``Item.breaks`` and ``Item.parts``.

    Attributes:
        alpha: Weight of the mean of the single layers.
    """

    name = "depth"
    fits = False
    adds_activations = False

    alpha: float = method_setting(0.0, "weight of the mean of single layers.")

    def admits(self, choice: ChoiceTraits) -> bool:
        """Keeping a layer, and merging several without dropping any."""
        return choice.kind == "keep" or (choice.kind == "merge" and choice.layers > 1 and choice.dropped == 0)

    def stage_one(self, length: int, latencies: Mapping[Span, int]) -> dict[Span, Interval]:
        """T_opt."""
        return fastest(length, latencies)

    def problem(
        self,
        lengths: Sequence[int],
        candidates: Iterable[Candidate],
        fixed_ns: int,
        original_ns: int,
        groups: Sequence[MeasuredGroup] = (),
    ) -> Problem:
        """One item for each interval that can be run and is measured; see ``Method``.

        Raises:
            InputError: A ``merge`` does not say how many convolutions it drops, two candidates are one to this
                method, or what ``Problem`` refuses.
        """
        candidates = list(at_widths(candidates, groups))
        for one in candidates:
            if one.kind == "merge" and one.dropped is None:
                raise InputError(
                    f"{describe(one)}: it does not say how many convolutions it drops, and {self.name} drops none",
                    hint="give its number of dropped convolutions, or plan with another method",
                )
        admitted = [one for one in candidates if self.admits(one)]
        for one in admitted:
            check_timed(one, tuple(lengths))
            if not math.isfinite(self.importance(one)):
                raise InputError(f"{describe(one)}: value {self.importance(one)} is not finite")
        items = [item for chain, length in enumerate(lengths) for item in self._items(chain, length, admitted)]
        return Problem(tuple(lengths), tuple(items), fixed_ns, original_ns, self.name)

    def _items(self, chain: int, length: int, admitted: Sequence[Candidate]) -> Iterator[Item]:
        mine = [one for one in admitted if one.chain == chain]
        worth: dict[tuple[int, int, bool, bool], float] = {}
        merges: dict[Span, Candidate] = {}
        for one, value in zip(mine, self._normalised(mine), strict=True):
            state = one.start, one.end, one.start_activation, one.end_activation
            if state in worth:
                raise InputError(f"{describe(one)}: there is another of the same block, with the same activations")
            worth[state] = float(value)
            merge = merges.setdefault((one.start, one.end), one)
            if merge.latency_ns != one.latency_ns:
                raise InputError(f"{describe(one)}: its latency is not that of {merge.key!r}, the same convolution")
        intervals = self.stage_one(length, {block: merge.latency_ns for block, merge in merges.items()})
        for block, value in extended(length, worth).items():
            if block in intervals:
                yield _item(chain, intervals[block], merges, value)

    def _normalised(self, candidates: Sequence[Candidate]) -> Floats:
        column = np.array([self.importance(one) for one in candidates], np.float64)
        single = np.array([one.layers == 1 for one in candidates], np.bool_)
        if self.alpha == 0 or not single.any():
            return column
        lowered: Floats = column - self.alpha * column[single].mean()
        return lowered


def _item(chain: int, interval: Interval, merges: Mapping[Span, Candidate], value: float) -> Item:
    parts = [merges[block] for block in pairwise(interval.breaks)]
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
        low_ns=low,
        high_ns=high,
        breaks=interval.breaks[1:-1],
        parts=keys,
    )


def _joined(latency_ns: int, lows: Sequence[int], highs: Sequence[int], parts: Sequence[Candidate]) -> tuple[int, int]:
    """Interval of a sum of parts that were measured independently of each other: half-widths add as squares."""
    below = math.hypot(*(part.latency_ns - low for part, low in zip(parts, lows, strict=True)))
    above = math.hypot(*(high - part.latency_ns for part, high in zip(parts, highs, strict=True)))
    return max(0, math.floor(latency_ns - below)), math.ceil(latency_ns + above)
