"""Chains whose blocks can be run and are measured, and what looking at every division says about them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import strategies as st

Flags = tuple[int, int, bool, bool]
Table = tuple[int, dict[tuple[int, int], int], dict[Flags, float]]


def ways(start: int, end: int) -> Iterator[tuple[int, ...]]:
    """All sequences of layers from start to end."""
    inner = range(start + 1, end)
    for bits in range(2 ** len(inner)):
        yield (start, *(layer for i, layer in enumerate(inner) if bits >> i & 1), end)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """A chain whose single layers can be run and are measured, with some merges, and blocks with open boundaries."""
    length = draw(st.integers(1, 5))
    blocks = [(s, e) for s in range(length) for e in range(s + 1, length + 1)]
    known = {b for b in blocks if b[1] == b[0] + 1} | draw(st.sets(st.sampled_from(blocks)))
    latencies = {block: draw(st.integers(0, 20)) for block in sorted(known)}
    states = [(s, e, a, b) for s, e in sorted(known) for a in (True, False) for b in (True, False)]
    closed = {(s, e, True, True) for s, e in known if e == s + 1}
    values = st.integers(-8, 8).map(lambda eighths: eighths / 8)  # exact in any order
    worth = {state: draw(values) for state in sorted(closed | draw(st.sets(st.sampled_from(states))))}
    return length, latencies, worth


def quickest(start: int, end: int, latencies: dict[tuple[int, int], int]) -> int | None:
    totals = [
        sum(latencies[block] for block in pairwise(way))
        for way in ways(start, end)
        if all(block in latencies for block in pairwise(way))
    ]
    return min(totals, default=None)


def worthiest(start: int, end: int, length: int, worth: dict[Flags, float]) -> float | None:
    """The best sum over ways to divide an interval at open boundaries; the ends of the chain are as they are."""

    def value(block: tuple[int, int]) -> float | None:
        lefts = (True, False) if block[0] == 0 else (block[0] == start,)
        rights = (True, False) if block[1] == length else (block[1] == end,)
        return max((worth[*block, a, b] for a in lefts for b in rights if (*block, a, b) in worth), default=None)

    totals = []
    for way in ways(start, end):
        values = [value(block) for block in pairwise(way)]
        if None not in values:
            totals.append(sum(v for v in values if v is not None))
    return max(totals, default=None)
