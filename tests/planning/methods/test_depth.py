"""Depth compression finds what looking at everything finds, and says what it cannot plan."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.instances import pareto
from tests.planning.interval_tables import Flags, Table, quickest, tables, ways, worthiest
from trt_layermerge.errors import InfeasibleBudgetError, InputError
from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods.depth import Depth
from trt_layermerge.planning.problem import Item


def candidates(latencies: dict[tuple[int, int], int], worth: dict[Flags, float]) -> list[Candidate]:
    return [
        Candidate(
            0, s, e, f"{s}-{e}", "keep" if e == s + 1 else "merge", latencies[s, e], False, 0.0, 0.0,
            importance=value, dropped=0, start_activation=a, end_activation=b,
        )
        for (s, e, a, b), value in worth.items()
    ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(tables(), st.integers(0, 100))
def test_stage_two_finds_the_best_activations_to_keep(table: Table, budget_ns: int) -> None:
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


KEEPS = [Candidate(0, i, i + 1, f"keep {i}", "keep", 10, False, 0.0, -0.5 * i) for i in range(3)]
PAIR = Candidate(0, 0, 2, "pair", "merge", 12, False, 0.0, 1.0, dropped=0)
ALL = Candidate(0, 0, 3, "all", "merge", 40, False, 0.0, 2.0, dropped=0)


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
        (replace(PAIR, key="twin", end=4), "the chain has layers 1 to 3"),
        (replace(PAIR, key="twin", chain=1), "there are 1 chains"),
        (replace(PAIR, key="twin", latency_ns=-1), "latency -1 ns"),
        (replace(PAIR, key="twin", loss_after=float("nan")), "value nan"),
    ],
)
def test_what_makes_no_problem_names_the_candidate(wrong: Candidate, fault: str) -> None:
    with pytest.raises(InputError, match=fault) as error:
        Depth().problem([3], [*KEEPS, PAIR, wrong], 0, 10)
    assert repr(wrong.key) in error.value.message
