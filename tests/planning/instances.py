"""Problems and tables that the tests of this room share, and what looking at every plan says about them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hypothesis import strategies as st

from trt_layermerge.planning.problem import Item, Problem

Point = tuple[int, float]

LATENCIES = st.integers(0, 6) | st.integers(0, 50) | st.integers(0, 10**9)
VALUES = st.sampled_from([-1.0, 0.0, 0.25, 0.5]) | st.floats(-5, 5)


@st.composite
def problems(draw: st.DrawFn, latencies: st.SearchStrategy[int] = LATENCIES) -> Problem:
    """Small problems: a 'keep' for each layer, and some other choices."""
    lengths = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    blocks = [(c, s, s + 1) for c, length in enumerate(lengths) for s in range(length)]
    spans = [(c, s, e) for c, length in enumerate(lengths) for s in range(length) for e in range(s + 1, length + 1)]
    blocks += draw(st.lists(st.sampled_from(spans), max_size=7)) if spans else []
    items = tuple(Item(*block, f"#{i}", "merge", draw(latencies), draw(VALUES)) for i, block in enumerate(blocks))
    return Problem(lengths, tuple(draw(st.permutations(items))), draw(st.integers(-20, 20)), original_ns=100)


def pareto(points: set[Point]) -> list[Point]:
    best: list[Point] = []
    for latency, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((latency, value))
    return best


def tilings(problem: Problem, chain: int, layer: int = 0) -> Iterator[tuple[Item, ...]]:
    if layer == problem.lengths[chain]:
        yield ()
    for item in problem.items:
        if (item.chain, item.start) == (chain, layer):
            yield from ((item, *rest) for rest in tilings(problem, chain, item.end))


def all_plans(problem: Problem) -> Iterator[tuple[Item, ...]]:
    for parts in product(*(tilings(problem, chain) for chain in range(len(problem.lengths)))):
        yield tuple(item for part in parts for item in part)


def totals(problem: Problem, items: tuple[Item, ...]) -> Point:
    latency, value = problem.fixed_ns, 0.0
    for item in items:
        latency, value = latency + item.latency_ns, value + item.value
    return latency, value


def brute_force(problem: Problem) -> list[Point]:
    """The frontier by looking at every plan there is."""
    return pareto({totals(problem, items) for items in all_plans(problem)})
