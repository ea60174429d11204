from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.instances import narrowable, problems
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.budget_spread import STEP, rounded_up, spread_budgets
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.problem import Item, Problem


def of_two(fastest: int, original: int) -> Frontier:
    """Whose plans are the original and a fastest one."""
    items = (Item(0, 0, 1, "keep", "keep", original, 0.0), Item(0, 0, 1, "merge", "merge", fastest, -1.0))
    return solve(Problem((1,), items, 0, original))


@given(problems() | narrowable(), st.integers(1, 7))
def test_each_budget_is_met_by_a_plan_and_below_the_one_before(problem: Problem, count: int) -> None:
    frontier = solve(problem)
    budgets = spread_budgets(frontier, count)
    shares = [budget.amount for budget in budgets]
    assert len(budgets) <= count and all(0 < share < 1 for share in shares)
    assert shares == sorted(set(shares), reverse=True)
    for budget in budgets:
        assert Budget.parse(str(budget)) == budget
        assert frontier.best(budget.nanoseconds(problem.original_ns)).latency_ns <= problem.original_ns


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 7))
def test_they_reach_the_fastest_plan_or_as_far_as_steps_may_be(one: int, other: int, count: int) -> None:
    fastest, original = sorted((one, other))
    budgets = spread_budgets(of_two(fastest, original), count)
    furthest = max(fastest / original, STEP**-count)
    if fastest * 10_000 < original * 9_999:
        assert furthest - 1e-9 <= float(budgets[-1].amount) <= furthest + 0.01 + 1e-9
    else:
        assert budgets == () or fastest < original


def test_steps_are_even_in_speed_up() -> None:
    wide, narrow = of_two(32, 1000), of_two(512, 1000)
    assert [str(budget) for budget in spread_budgets(wide, 5)] == ["0.71", "0.50", "0.36", "0.25", "0.18"]
    assert [str(budget) for budget in spread_budgets(narrow, 2)] == ["0.72", "0.52"]
    assert spread_budgets(of_two(1000, 1000), 5) == ()


@pytest.mark.parametrize(("share", "rounded"), [(0.5, "0.50"), (0.501, "0.51"), (1e-9, "0.01"), (1.0, "1.00")])
def test_shares_are_rounded_up(share: float, rounded: str) -> None:
    assert rounded_up(share, 2) == Decimal(rounded)
