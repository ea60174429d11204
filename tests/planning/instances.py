"""Problems and tables that the tests of this package share, and what looking at every plan says about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, combinations, product

from hypothesis import strategies as st

from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.widths import WidthGroup, WidthOption

Point = tuple[int, float]

LATENCIES = st.integers(0, 6) | st.integers(0, 50) | st.integers(0, 10**9)
VALUES = st.sampled_from([-1.0, 0.0, 0.25, 0.5]) | st.floats(-5, 5)


@st.composite
def problems(draw: st.DrawFn, latencies: st.SearchStrategy[int] = LATENCIES) -> Problem:
    """Small problems: a 'keep' for each layer, and some other choices."""
    return draw(problems_of(tuple(draw(st.lists(st.integers(1, 4), max_size=3))), latencies))


@st.composite
def problems_of(draw: st.DrawFn, lengths: tuple[int, ...], latencies: st.SearchStrategy[int]) -> Problem:
    """Problems of chains of these lengths."""
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


@st.composite
def narrowable(draw: st.DrawFn, latencies: st.SearchStrategy[int] = LATENCIES) -> Problem:
    """Small problems with channel groups, in which every width can be planned: each choice is there for all of them.

    Values are eighths, so that sums are exact in whatever order.
    """
    values = st.integers(-16, 8).map(lambda eighths: eighths / 8)
    lengths = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    count = draw(st.integers(1, 3))
    groups = tuple(
        WidthGroup(
            f"g{i}",
            tuple(
                WidthOption(channels, draw(values), draw(st.integers(-3, 3)))
                for channels in draw(st.lists(st.sampled_from([4, 8, 16]), min_size=1, max_size=2, unique=True))
            ),
        )
        for i in range(count)
    )
    named = [draw(st.none() | st.sampled_from(groups)) for length in lengths for _ in range(length + 1)]
    items: list[Item] = []
    for number, one in enumerate(draw(problems_of(lengths, latencies)).items):
        first = sum(length + 1 for length in lengths[: one.chain]) + one.start
        last = sum(length + 1 for length in lengths[: one.last_chain]) + one.end
        beside = draw(st.none() | st.sampled_from(groups)) if draw(st.booleans()) else None  # what a skip reads
        touched = list(dict.fromkeys(group for group in (named[first], named[last], beside) if group is not None))
        for options in product(*(group.options for group in touched)):
            widths = tuple((g.key, option.channels) for g, option in zip(touched, options, strict=True))
            items.append(replace(one, key=f"#{number}", latency_ns=draw(latencies), value=draw(values), widths=widths))
    return Problem(lengths, tuple(draw(st.permutations(items))), draw(st.integers(-20, 20)), 100, groups=groups)


def pareto(points: set[Point]) -> list[Point]:
    best: list[Point] = []
    for latency, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or value > best[-1][1]:
            best.append((latency, value))
    return best


def all_plans(problem: Problem) -> Iterator[tuple[Item, ...]]:
    """Every way from the first layer to the last, over all chains laid end to end, whose items agree about widths."""
    first = [0, *accumulate(problem.lengths)]
    places = [(first[item.chain] + item.start, first[item.last_chain] + item.end, item) for item in problem.items]

    def onward(layer: int, widths: dict[str, int]) -> Iterator[tuple[Item, ...]]:
        if layer == first[-1]:
            yield ()
        for start, end, item in places:
            if start == layer and all(widths.get(key, channels) == channels for key, channels in item.widths):
                yield from ((item, *rest) for rest in onward(end, widths | dict(item.widths)))

    return onward(0, {})


def totals(problem: Problem, items: tuple[Item, ...]) -> Point:
    latency, value = problem.fixed_ns, 0.0
    worth = {(group.key, option.channels): option for group in problem.groups for option in group.options}
    named: set[tuple[str, int]] = set()
    for item in items:
        latency, gain = latency + item.latency_ns, item.value
        for width in item.widths:
            if width not in named:
                named.add(width)
                latency, gain = latency + worth[width].latency_ns, gain + worth[width].value
        value += gain
    return latency, value


def brute_force(problem: Problem) -> list[Point]:
    """The frontier by looking at every plan there is."""
    return pareto({totals(problem, items) for items in all_plans(problem)})
