from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.planning.instances import narrowable, problems
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.views import frontier_view
from trt_layermerge.report.plans import FoundPlans

LAYER = Item(0, 0, 1, "0:0-1 keep", "keep", 50, 0.0)


def frontier_of(*items: Item) -> Frontier:
    return solve(Problem((1,), items, 0, original_ns=100))


@given(problems() | narrowable(), st.integers(2, 5))
def test_every_plan_is_told_in_every_form(problem: Problem, count: int) -> None:
    frontier = solve(problem)
    assume(len(frontier_view(frontier)) > 0)
    budget = int(frontier.latency_ns.max())
    found = FoundPlans(frontier, budget, frontier.best_plans(budget, count), more={"plan": "plan.json"})
    for plan in found.plans:
        *blocks, last = found.plan_lines(plan)
        narrowed = sum(width.channels < width.full for width in plan.widths)
        assert len(blocks) - narrowed == len(plan.items) == len(found.plan_fields(plan)["blocks"])
        assert f"{plan.objective:+.4f}" in last and found.plan_fields(plan)["plan"] == "plan.json"
    header, *rows = found.plans_csv().splitlines()
    assert header.startswith("plan,start,end")
    assert [row.split(",", 1)[0] for row in rows] == [
        str(number) for number, plan in enumerate(found.plans, start=1) for _ in plan.items
    ]
    assert [row.split(",", 1)[1] for row in rows] == [
        row for plan in found.plans for row in found.plan_csv(plan).splitlines()[1:]
    ]


@given(problems() | narrowable())
def test_a_frontier_is_told_with_the_plan_that_is_marked(problem: Problem) -> None:
    frontier = solve(problem)
    plain = FoundPlans(frontier, None, ()).frontier_fields()
    assert plain == {"method": problem.method, "frontier": frontier_view(frontier)}
    assert len(list(FoundPlans(frontier, None, ()).frontier_lines())) == len(plain["frontier"])
    marked = FoundPlans(frontier, int(frontier.latency_ns[0]), (frontier.best(int(frontier.latency_ns[0])),))
    assert marked.frontier_fields().keys() > {"method", "frontier", "blocks", "latency_ms"}
    json.dumps(marked.frontier_fields(), allow_nan=False)


def test_a_probability_needs_a_budget_and_an_interval() -> None:
    timed = frontier_of(replace(LAYER, low_ns=40, high_ns=60))
    for frontier, budget, known in ((timed, 50, True), (timed, None, False), (frontier_of(LAYER), 50, False)):
        plan = frontier.best(50)
        found = FoundPlans(frontier, budget, (plan,))
        assert (found.probability(plan) is not None) is known
        assert ("probability" in found.plan_fields(plan)) is known
        assert ("with probability" in "".join(found.plan_lines(plan))) is known


def test_a_speedup_needs_the_latency_of_the_original() -> None:
    frontier = frontier_of(LAYER)
    lines = ["".join(FoundPlans(frontier, 50, (), known).plan_lines(frontier.best(50))) for known in (True, False)]
    assert "2.00x" in lines[0] and "2.00x" not in lines[1]
