"""The best plans are those that looking at every plan finds, and none is over the budget."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.instances import all_plans, narrowable, problems, totals
from trt_layermerge.errors import InfeasibleBudgetError, UsageError
from trt_layermerge.planning import kbest
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.problem import Item, Problem

BUDGETS = st.integers(-20, 200) | st.integers(0, 3 * 10**9)


def large(seed: int, layers: int = 9) -> Problem:
    """Plans by the thousand, on which bounds have something to say."""
    random = np.random.default_rng(seed)
    spans = [(s, e) for s in range(layers) for e in range(s + 1, min(layers, s + 3) + 1) for _ in range(2)]
    items = [
        Item(0, s, e, f"#{i}", "fit", int(random.integers(1, 100)), -float(random.random()))
        for i, (s, e) in enumerate(spans)
    ]
    return Problem((layers,), tuple(items), fixed_ns=7, original_ns=1)


@settings(max_examples=250, deadline=None)
@given(problems() | narrowable(), BUDGETS, st.integers(1, 12), st.sampled_from([1, kbest.DEPTHS]), st.booleans())
def test_they_are_what_brute_force_finds(
    problem: Problem, budget_ns: int, count: int, depths: int, best_is_known: bool
) -> None:
    every = [totals(problem, items) for items in all_plans(problem)]
    within = sorted((value for latency, value in every if latency <= budget_ns), reverse=True)[:count]
    with mock.patch.object(kbest, "DEPTHS", depths):
        known = within[0] if best_is_known and within else -np.inf
        plans = kbest.best_plans(problem, budget_ns, count, known)
    assert [plan.objective for plan in plans] == pytest.approx(within, abs=1e-9)
    assert len({plan.items for plan in plans}) == len(plans)
    for plan in plans:
        assert plan.latency_ns <= budget_ns
        assert totals(problem, plan.items) == (plan.latency_ns, plan.objective)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 10, 300])
def test_bounds_lose_nothing(seed: int, count: int) -> None:
    problem = large(seed)
    every = sorted((totals(problem, items) for items in all_plans(problem)), key=lambda point: -point[1])
    for share in (0.3, 0.5, 1.0):
        budget_ns = int(share * max(latency for latency, _ in every))
        within = [value for latency, value in every if latency <= budget_ns][:count]
        for known in (-np.inf, within[0]):
            found = [plan.objective for plan in kbest.best_plans(problem, budget_ns, count, known)]
            assert found == pytest.approx(within, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(problems() | narrowable(), BUDGETS, st.integers(1, 6))
def test_the_frontier_gives_its_own_plan_first(problem: Problem, budget_ns: int, count: int) -> None:
    frontier = solve(problem)
    if budget_ns < frontier.fastest.latency_ns:
        with pytest.raises(InfeasibleBudgetError):
            frontier.best_plans(budget_ns, count)
        return
    plans = frontier.best_plans(budget_ns, count)
    assert plans[0].objective == frontier.best(budget_ns).objective
    assert all(plan.latency_ns <= budget_ns for plan in plans)
    assert len(plans) <= count


def test_around_a_budget_are_the_best_within_it_and_some_that_just_exceed_it() -> None:
    frontier = solve(large(seed=0))
    index = len(frontier) // 2
    budget_ns = int(frontier.latency_ns[index])
    plans = frontier.around(budget_ns, 6, beyond=10.0)
    over = [plan for plan in plans if plan.latency_ns > budget_ns]
    assert sorted(plan.latency_ns for plan in over) == frontier.latency_ns[index + 1 : index + 3].tolist()
    assert [plan for plan in plans if plan not in over] == list(frontier.best_plans(budget_ns, 4))
    assert [plan.objective for plan in plans] == sorted((plan.objective for plan in plans), reverse=True)
    assert frontier.around(budget_ns, 6, beyond=0.0) == frontier.best_plans(budget_ns, 6)


@pytest.mark.parametrize("ask", [Frontier.best_plans, Frontier.around])
def test_no_plan_at_all_is_a_usage_error(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(UsageError, match="0 best plans"):
        ask(solve(large(seed=0)), 10**6, 0)


def test_there_is_none_below_the_fastest() -> None:
    problem = large(seed=0)
    assert kbest.best_plans(problem, solve(problem).fastest.latency_ns - 1, 3) == ()
