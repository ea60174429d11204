"""Problems and tables that the tests of this package share, and what looking at every plan says about them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, combinations

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
    items = [Item(*block, f"#{i}", "merge", draw(latencies), draw(VALUES)) for i, block in enumerate(blocks)]
    items += draw(regions(lengths, latencies)) if len(lengths) > 1 else []
    return Problem(lengths, tuple(draw(st.permutations(items))), draw(st.integers(-20, 20)), original_ns=100)


@st.composite
def regions(draw: st.DrawFn, lengths: tuple[int, ...], latencies: st.SearchStrategy[int]) -> list[Item]:
    """Choices for blocks that end in a later chain; some save more than they take."""
    ends = [(c, s, d, e) for c, d in combinations(range(len(lengths)), 2) for s in range(lengths[c] + 1)
            for e in range(1, lengths[d] + 1)]  # fmt: skip
    signs = st.sampled_from([1, -1]) if latencies is LATENCIES else st.just(1)
    return [
        Item(chain, start, end, f"r{i}", "fit", draw(signs) * draw(latencies), draw(VALUES), end_chain=end_chain)
        for i, (chain, start, end_chain, end) in enumerate(draw(st.lists(st.sampled_from(ends), max_size=3)))
    ]


def pareto(points: set[Point]) -> list[Point]:
    best: list[Point] = []
    for latency, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((latency, value))
    return best


def all_plans(problem: Problem) -> Iterator[tuple[Item, ...]]:
    """Every way from the first layer to the last, over all chains laid end to end."""
    first = [0, *accumulate(problem.lengths)]
    places = [(first[item.chain] + item.start, first[item.last_chain] + item.end, item) for item in problem.items]

    def onward(layer: int) -> Iterator[tuple[Item, ...]]:
        if layer == first[-1]:
            yield ()
        for start, end, item in places:
            if start == layer:
                yield from ((item, *rest) for rest in onward(end))

    return onward(0)


def totals(problem: Problem, items: tuple[Item, ...]) -> Point:
    latency, value = problem.fixed_ns, 0.0
    for item in items:
        latency, value = latency + item.latency_ns, value + item.value
    return latency, value


def brute_force(problem: Problem) -> list[Point]:
    """The frontier by looking at every plan there is."""
    return pareto({totals(problem, items) for items in all_plans(problem)})
