"""A plan says how sure it is to keep its budget, and planning for a confidence keeps what it promises."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.instances import all_plans, narrowable, problems, totals
from trt_layermerge.errors import InfeasibleBudgetError, InputError, UsageError
from trt_layermerge.planning import confidence
from trt_layermerge.planning.confidence import plan_for, probability
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item, Problem

WIDE = Item(0, 0, 1, "wide", "fit", 1000, 1.0, low_ns=804, high_ns=1196)  # a standard deviation of 100 ns
NARROW = Item(0, 0, 1, "narrow", "fit", 1010, 0.5, low_ns=990, high_ns=1030)
SLOW = Item(0, 0, 1, "slow", "keep", 1150, 2.0)
FAST = Item(0, 0, 1, "fast", "fit", 400, 0.0, low_ns=390, high_ns=410)


@st.composite
def uncertain(draw: st.DrawFn) -> Problem:
    """Small problems of which some latencies have an interval."""
    problem, items = draw(problems(st.integers(0, 60)) | narrowable(st.integers(0, 60))), []
    for item in problem.items:
        low, high = item.latency_ns - draw(st.integers(0, item.latency_ns)), item.latency_ns + draw(st.integers(0, 30))
        items.append(replace(item, low_ns=low, high_ns=high) if draw(st.booleans()) else item)
    return replace(problem, items=tuple(items))


def plan(*items: Item) -> Plan:
    chained = tuple(replace(item, start=i, end=i + 1) for i, item in enumerate(items))
    return Plan("joint", chained, sum(item.latency_ns for item in items), 0.0, 10_000)


def problem(*items: Item) -> Problem:
    return Problem((1,), items, fixed_ns=0, original_ns=2000)


@pytest.mark.parametrize("budget_ns", [900, 1000, 1100, 1164])
def test_one_latency_follows_its_interval(budget_ns: int) -> None:
    expected = NormalDist(1000, 100).cdf(budget_ns)
    assert probability(plan(WIDE), budget_ns) == pytest.approx(expected, abs=0.02)


def test_half_of_the_probability_lies_on_each_side_of_a_lopsided_interval() -> None:
    lopsided = replace(WIDE, low_ns=990, high_ns=1980)
    assert probability(plan(lopsided), 1000) == pytest.approx(0.5, abs=0.02)
    assert probability(plan(lopsided), 1980) == pytest.approx(0.975, abs=0.01)


def test_errors_of_different_measurements_add_up_as_squares_and_of_one_as_they_are() -> None:
    others = [replace(WIDE, latency_ns=1000 + i, low_ns=804 + i, high_ns=1196 + i) for i in range(4)]
    total = sum(item.latency_ns for item in others)
    assert probability(plan(*others), total + 200) == pytest.approx(NormalDist().cdf(1), abs=0.02)
    assert probability(plan(*[WIDE] * 4), 4000 + 200) == pytest.approx(NormalDist().cdf(0.5), abs=0.02)


def test_a_region_that_saves_more_than_its_convolution_takes_has_a_latency_below_0() -> None:
    saving = replace(WIDE, latency_ns=-1000, low_ns=-1196, high_ns=-804)
    assert probability(plan(saving), -900) == pytest.approx(NormalDist().cdf(1), abs=0.02)


@given(st.integers(0, 3000))
def test_what_is_certain_is_kept_or_not(budget_ns: int) -> None:
    assert probability(plan(SLOW), budget_ns) == float(budget_ns >= 1150)


def test_a_seed_gives_the_same_draws_again() -> None:
    first = probability(plan(WIDE, NARROW), 2050, seed=1)
    confidence._errors.cache_clear()
    assert probability(plan(WIDE, NARROW), 2050, seed=1) == first
    assert probability(plan(WIDE, NARROW), 2050, seed=2) != first


@settings(max_examples=60, deadline=None)
@given(uncertain(), st.integers(-20, 200), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_it_is_the_best_plan_that_is_sure_enough(problem: Problem, budget_ns: int, confidence: float) -> None:
    frontier = solve(problem)
    sure = []
    for items in all_plans(problem):
        latency, value = totals(problem, items)
        if latency <= budget_ns and probability(Plan("", items, latency, value, 100), budget_ns) >= confidence:
            sure.append(value)
    if not sure:
        with pytest.raises(InfeasibleBudgetError):
            plan_for(frontier, budget_ns, confidence)
        return
    found = plan_for(frontier, budget_ns, confidence)
    assert found.plan.latency_ns <= budget_ns
    assert found.probability >= confidence
    assert probability(found.plan, budget_ns) == found.probability
    assert not found.best or math.isclose(found.plan.objective, max(sure), abs_tol=1e-9)


def test_a_plan_beside_the_frontier_may_be_the_sure_one() -> None:
    frontier = solve(problem(WIDE, NARROW, FAST))
    assert [item.key for item in frontier.best(1040).items] == ["wide"]
    found = plan_for(frontier, 1040, 0.95)
    assert ([item.key for item in found.plan.items], found.best) == (["narrow"], True)


def test_the_first_plan_that_is_looked_at_may_not_be_the_best() -> None:
    frontier = solve(problem(WIDE, NARROW, FAST))
    with mock.patch.object(confidence, "CLOSEST", 1):
        found = plan_for(frontier, 1040, 0.95)
    assert ([item.key for item in found.plan.items], found.best) == (["fast"], False)


def test_a_steady_plan_is_found_though_it_is_not_on_the_frontier() -> None:
    frontier = solve(problem(WIDE, replace(NARROW, value=-9.0)))
    with mock.patch.object(confidence, "CLOSEST", 1):
        found = plan_for(frontier, 1040, 0.95)
    assert ([item.key for item in found.plan.items], found.best) == (["narrow"], False)
    assert found.plan.objective == -9.0


def test_the_error_names_the_surest_plan_and_the_fastest() -> None:
    with pytest.raises(
        InfeasibleBudgetError, match=r"the surest, of 0\.00101 ms, .* the fastest takes 0\.001 ms"
    ) as error:
        plan_for(solve(problem(WIDE, NARROW)), 1012, 0.9)
    assert error.value.fastest_ms == 0.001


@pytest.mark.parametrize("asked", [0.0, 1.0, 95.0, -1.0, float("nan")])
def test_a_confidence_is_between_0_and_1(asked: float) -> None:
    with pytest.raises(UsageError, match="confidence"):
        plan_for(solve(problem(WIDE)), 2000, asked)


@pytest.mark.parametrize(("low", "high"), [(None, 1), (1001, 1200), (800, 999), (-1, 1200), (800, None), (800, 10**16)])
def test_an_interval_holds_its_latency(low: int | None, high: int | None) -> None:
    with pytest.raises(InputError, match=r"'wide' .* not within its interval"):
        problem(replace(WIDE, low_ns=low, high_ns=high))
