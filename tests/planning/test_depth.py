"""Both stages of depth compression find what looking at everything finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.instances import pareto
from trt_layermerge.errors import InfeasibleBudgetError, InputError
from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.depth import Depth, Interval, extended, fastest
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.problem import Item

Flags = tuple[int, int, bool, bool]


def ways(start: int, end: int) -> Iterator[tuple[int, ...]]:
    """All sequences of layers from start to end."""
    inner = range(start + 1, end)
    for bits in range(2 ** len(inner)):
        yield (start, *(layer for i, layer in enumerate(inner) if bits >> i & 1), end)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, dict[tuple[int, int], int], dict[Flags, float]]:
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


def candidates(latencies: dict[tuple[int, int], int], worth: dict[Flags, float]) -> list[Candidate]:
    return [
        Candidate(
            0, s, e, f"{s}-{e}", "keep" if e == s + 1 else "merge", False, latencies[s, e], 0.0, 0.0,
            importance=value, dropped=0, start_activation=a, end_activation=b,
        )
        for (s, e, a, b), value in worth.items()
    ]  # fmt: skip


@given(tables())
def test_stage_one_is_the_fastest_of_all_divisions(
    table: tuple[int, dict[tuple[int, int], int], dict[Flags, float]],
) -> None:
    length, latencies, _ = table
    intervals = fastest(length, latencies)
    for start in range(length):
        for end in range(start + 1, length + 1):
            best, interval = quickest(start, end, latencies), intervals.get((start, end))
            assert (best is None) == (interval is None)
            if interval is not None:
                assert interval.latency_ns == best == sum(latencies[block] for block in pairwise(interval.breaks))
                assert (interval.breaks[0], interval.breaks[-1]) == (start, end) == (interval.start, interval.end)


@given(tables())
def test_importance_is_extended_over_open_boundaries(
    table: tuple[int, dict[tuple[int, int], int], dict[Flags, float]],
) -> None:
    length, _, worth = table
    values = extended(length, worth)
    for start in range(length):
        for end in range(start + 1, length + 1):
            assert values.get((start, end)) == worthiest(start, end, length, worth)


@settings(max_examples=200, deadline=None)
@given(tables(), st.integers(0, 100))
def test_stage_two_finds_the_best_activations_to_keep(
    table: tuple[int, dict[tuple[int, int], int], dict[Flags, float]], budget_ns: int
) -> None:
    length, latencies, worth = table
    measured = {block: latencies[block] for block in {(s, e) for s, e, _, _ in worth}}
    points = set()
    for kept in ways(0, length):
        times = [quickest(*block, measured) for block in pairwise(kept)]
        values = [worthiest(*block, length, worth) for block in pairwise(kept)]
        if None not in times + values:
            points.add((sum(t for t in times if t is not None), sum(v for v in values if v is not None)))
    frontier = solve(Depth().problem([length], candidates(latencies, worth), fixed_ns=0, original_ns=10))
    assert list(zip(frontier.latency_ns.tolist(), frontier.value.tolist(), strict=True)) == pareto(points)
    if budget_ns >= frontier.fastest.latency_ns:
        assert frontier.best(budget_ns).latency_ns <= budget_ns
    else:
        with pytest.raises(InfeasibleBudgetError):
            frontier.best(budget_ns)


KEEPS = [Candidate(0, i, i + 1, f"keep {i}", "keep", False, 10, 0.0, -0.5 * i) for i in range(3)]
PAIR = Candidate(0, 0, 2, "pair", "merge", False, 12, 0.0, 1.0, dropped=0)
ALL = Candidate(0, 0, 3, "all", "merge", False, 40, 0.0, 2.0, dropped=0)


def items(method: Depth, *candidates: Candidate) -> dict[tuple[int, int], Item]:
    return {(item.start, item.end): item for item in method.problem([3], candidates, 0, 10).items}


def test_a_plan_names_the_breaks_of_an_interval_and_the_choices_between_them() -> None:
    found = items(Depth(), *KEEPS, PAIR, ALL)
    whole = found[0, 3]
    assert (whole.latency_ns, whole.value, whole.breaks, whole.parts) == (22, -2.0, (2,), ("pair", "keep 2"))
    assert (found[0, 2].key, found[0, 2].breaks, found[0, 2].parts) == ("pair", (), ())
    assert solve(Depth().problem([3], [*KEEPS, PAIR, ALL], 0, 10)).plan(0).keys == ("pair", "keep 2")


def test_alpha_takes_off_the_mean_of_the_single_layers() -> None:
    plain, lowered = items(Depth(), *KEEPS, PAIR), items(Depth(alpha=2.0), *KEEPS, PAIR)
    assert {block: item.value for block, item in plain.items()} == {(0, 1): 0, (1, 2): 0.5, (2, 3): 1.0, (0, 2): -1.0}
    assert {block: item.value + 1.0 for block, item in lowered.items()} == {b: i.value for b, i in plain.items()}


def test_the_interval_of_a_sum_is_narrower_than_the_sum_of_intervals() -> None:
    pair, last = replace(PAIR, low_ns=9, high_ns=16), replace(KEEPS[2], low_ns=6, high_ns=13)
    whole = items(Depth(), *KEEPS[:2], pair, last, ALL)[0, 3]
    assert (whole.low_ns, whole.latency_ns, whole.high_ns) == (17, 22, 27)


def test_fits_and_identities_are_not_of_this_method() -> None:
    others = [replace(PAIR, key=kind, kind=kind, latency_ns=1) for kind in ("fit", "identity")]
    dropping = replace(PAIR, key="dropping", dropped=1, latency_ns=1)
    assert items(Depth(), *KEEPS, *others, dropping) == items(Depth(), *KEEPS)


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (replace(PAIR, dropped=None), "does not say how many convolutions it drops"),
        (replace(PAIR, key="twin"), "another of the same block"),
        (replace(PAIR, key="twin", latency_ns=11, end_activation=False), "latency is not that of 'pair'"),
        (replace(PAIR, key="twin", end=4), "outside of the chains"),
        (replace(PAIR, key="twin", chain=1), "outside of the chains"),
        (replace(PAIR, key="twin", latency_ns=-1), "latency -1 ns"),
        (replace(PAIR, key="twin", loss_after=float("nan")), "value nan"),
    ],
)
def test_what_makes_no_problem_names_the_candidate(wrong: Candidate, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as error:
        Depth().problem([3], [*KEEPS, PAIR, wrong], 0, 10)
    assert repr(wrong.key) in error.value.message


def test_of_equal_arrangements_the_longest_last_merge_is_taken() -> None:
    latencies = {(0, 1): 1, (1, 2): 1, (0, 2): 2, (2, 3): 1, (1, 3): 2}
    assert fastest(3, latencies)[0, 3] == Interval(0, 3, 3, (0, 1, 3))
