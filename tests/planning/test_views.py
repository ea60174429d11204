"""What other programs read of plans and frontiers."""

from __future__ import annotations

import csv
import json
from io import StringIO

import pytest
from hypothesis import given

from tests.planning.instances import problems
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.intervals import Interval
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.views import fastest_view, frontier_csv, frontier_view, plan_csv, plan_view
from trt_layermerge.planning.widths import WidthGroup, WidthOption

ITEMS = (
    Item(0, 0, 2, "a", "merge", 1_500_000, 0.25, kernel=5, depthwise=False),
    Item(0, 2, 5, "b + c", "merge", 750_001, -0.5, breaks=(4,), parts=("b", "c")),
)
PLAN = Plan("depth", ITEMS, 2_250_001, -0.25, 4_000_000)


def test_a_plan_as_json() -> None:
    view = json.loads(json.dumps(plan_view(PLAN, 2_400_000), allow_nan=False))
    assert view == {
        "method": "depth",
        "budget_ms": 2.4,
        "latency_ms": 2.250001,
        "objective": -0.25,
        "blocks": [
            {"start": 0, "end": 2, "kernel": 5, "depthwise": False, "latency_ms": 1.5, "importance": 0.25},
            {"start": 2, "end": 5, "kernel": None, "depthwise": None, "latency_ms": 0.750001, "importance": -0.5}
            | {"breaks": [2, 4, 5]},
        ],
    }
    assert plan_view(PLAN)["budget_ms"] is None
    assert plan_view(PLAN, 2_400_000, 0.75) == view | {"probability": 0.75}


def narrowed() -> Plan:
    items = (
        Item(0, 0, 1, "a", "keep", 1_000_000, 0.0, widths=(("g", 8),)),
        Item(0, 1, 2, "b", "keep", 2_000_000, 0.0, kernel=3, depthwise=True, widths=(("g", 8), ("h", 4))),
    )
    groups = (
        WidthGroup("g", (WidthOption(16, 0.0), WidthOption(8, -0.25))),
        WidthGroup("h", (WidthOption(4, 0.0),)),
    )
    return Plan.of(Problem((2,), items, 0, 10**7, groups=groups), items)


def test_a_plan_with_widths() -> None:
    view = json.loads(json.dumps(plan_view(narrowed()), allow_nan=False))
    assert view["widths"] == [
        {"group": "g", "channels": 8, "of": 16, "importance": -0.25},
        {"group": "h", "channels": 4, "of": 4, "importance": 0.0},
    ]
    assert plan_csv(narrowed(), widths=True).splitlines() == [
        "start,end,kernel,depthwise,latency_ms,importance,widths",
        "0,1,,,1,0.0,g=8",
        "1,2,3,1,2,0.0,g=8 h=4",
    ]


def test_several_chains_are_told_apart() -> None:
    items = tuple(Item(chain, 0, 1, str(chain), "keep", 1, 0.0) for chain in range(2))
    view = plan_view(Plan("joint", items, 2, 0.0, 2))
    assert [block["chain"] for block in view["blocks"]] == [0, 1]


def test_a_plan_as_csv() -> None:
    text = "start,end,kernel,depthwise,latency_ms,importance\n0,2,5,0,1.5,0.25\n2,5,,,0.750001,-0.5\n"
    assert plan_csv(PLAN) == text


@given(problems())
def test_a_frontier_comes_out_whole(problem: Problem) -> None:
    frontier = solve(problem)
    rows = list(csv.DictReader(StringIO(frontier_csv(frontier))))
    view = frontier_view(frontier)
    assert json.loads(json.dumps(view, allow_nan=False)) == view
    assert (
        [float(row["objective"]) for row in rows] == [point["objective"] for point in view] == frontier.value.tolist()
    )
    assert [point["latency_ms"] for point in view] == [float(row["latency_ms"]) for row in rows]
    assert [round(point["latency_ms"] * 1e6) for point in view] == frontier.latency_ns.tolist()


def test_stage_one_as_json() -> None:
    view = fastest_view([Interval(1, 2, 5, (1, 2)), Interval(0, 2, 9, (0, 1, 2))])
    assert view == [
        {"start": 0, "end": 2, "latency_ms": pytest.approx(9e-6), "breaks": [0, 1, 2]},
        {"start": 1, "end": 2, "latency_ms": pytest.approx(5e-6), "breaks": [1, 2]},
    ]
