from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.instances import narrowable, problems
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.budget_spread import rounded_up, spread_budgets
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


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_last_one_is_that_of_the_fastest_plan(one: int, other: int) -> None:
    fastest, original = sorted((one, other))
    budgets = spread_budgets(of_two(fastest, original), 5)
    if fastest * 10_000 >= original * 9_999:
        assert budgets == () or fastest < original
    else:
        assert budgets[-1].nanoseconds(original) >= fastest
        assert budgets[-1].amount - Decimal(fastest) / original <= Decimal("0.01")


def test_steps_are_even_in_speed_up() -> None:
    assert [str(budget) for budget in spread_budgets(of_two(32, 1000), 5)] == ["0.51", "0.26", "0.13", "0.07", "0.04"]
    assert spread_budgets(of_two(1000, 1000), 5) == ()


@pytest.mark.parametrize(("share", "rounded"), [(0.5, "0.50"), (0.501, "0.51"), (1e-9, "0.01"), (1.0, "1.00")])
def test_shares_are_rounded_up(share: float, rounded: str) -> None:
    assert rounded_up(share, 2) == Decimal(rounded)
