"""The network before and after as two strips of blocks to one scale of latency, and what flows between them.

Strips are cut out of their predicted latencies: numbers of one kind, which add up. What was measured stands elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trt_layermerge.report.summary import BlockRow

WIDTH = 1000.0
"""Of the drawing; what is slower fills it."""

OUTSIDE = "outside"
MOST_TICKS = 6


@dataclass(frozen=True)
class Segment:
    """A part of a strip.

    Attributes:
        x: Where it begins.
        width: Of it; 0 for what is dropped.
        fate: ``keep``, ``merge``, ``fit`` or ``identity``, or ``outside`` of all blocks.
        narrowed: Whether it has fewer channels than it had.
        tip: What it is and costs, in lines.
    """

    x: float
    width: float
    fate: str
    narrowed: bool
    tip: str


@dataclass(frozen=True)
class Ribbon:
    """What leads from the layers of a block to what becomes of it: where both begin and end."""

    top: tuple[float, float]
    bottom: tuple[float, float]
    fate: str


@dataclass(frozen=True)
class Strips:
    """Two strips to one scale, and the ribbons between them; none where the layers of the original are not known."""

    before: tuple[Segment, ...]
    after: tuple[Segment, ...]
    ribbons: tuple[Ribbon, ...]
    before_ns: int
    after_ns: int

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Of the scale: places in % of the width, and what stands there."""
        whole = max(self.before_ns, self.after_ns, 1) / 1e6
        step = 10.0 ** math.floor(math.log10(whole / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if whole / (step * factor) <= MOST_TICKS)
        return [(100 * n * step / whole, f"{n * step:.4g} ms") for n in range(int(whole / step * (1 + 1e-9)) + 1)]


def strips(blocks: Sequence[BlockRow], original_ns: int, planned_ns: int) -> Strips:
    """Lay blocks out.

    What neither strip has a block for is the segment ``outside`` at its end. A region may save more than takes its
    place; it has no width then, and the segment outside is what is left.

    Args:
        blocks: Of the plan, in order.
        original_ns: Latency of the original when it was planned, in ns.
        planned_ns: Predicted latency of the plan, in ns.
    """
    longest = max(original_ns, planned_ns, 1)
    after = tuple(_laid((_after(one) for one in blocks), planned_ns, longest))
    if not all(one.replaced for one in blocks):
        whole = tuple(_laid((), original_ns, longest, "the original"))
        return Strips(whole, after, (), original_ns, planned_ns)
    layers = [(layer.latency_ns, block, layer.told) for block in blocks for layer in block.replaced]
    before = tuple(_laid(((latency, block.fate, False, told) for latency, block, told in layers), original_ns, longest))
    return Strips(before, after, tuple(_ribbons(blocks, before, after)), original_ns, planned_ns)


def _after(block: BlockRow) -> tuple[int, str, bool, str]:
    return block.latency_ns, block.fate, bool(block.narrowed), block.told


def _laid(
    parts: Iterable[tuple[int, str, bool, str]], whole_ns: int, longest_ns: int, rest_is: str = "outside of all blocks"
) -> Iterator[Segment]:
    """Segments one after another, and what is left."""
    at = 0
    for latency, fate, narrowed, tip in parts:
        taken = max(latency, 0)
        yield Segment(WIDTH * at / longest_ns, WIDTH * taken / longest_ns, fate, narrowed, tip)
        at += taken
    if (rest := whole_ns - at) > 0:
        tip = f"{rest_is}\n{rest / 1e6:.4g} ms"
        yield Segment(WIDTH * at / longest_ns, WIDTH * rest / longest_ns, OUTSIDE, False, tip)


def _ribbons(blocks: Sequence[BlockRow], before: Sequence[Segment], after: Sequence[Segment]) -> Iterator[Ribbon]:
    first = 0
    for number, block in enumerate(blocks):
        own, made = before[first : first + len(block.replaced)], after[number]
        first += len(own)
        yield Ribbon((own[0].x, own[-1].x + own[-1].width), (made.x, made.x + made.width), block.fate)
