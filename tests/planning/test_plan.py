"""Plan files come back as they went, and one that is not right says which field is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.instances import narrowable
from trt_layermerge.errors import ExitCode, InputError, TableError
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.plan import Plan, PlanFile, Refined, read_plan, write_plan
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.widths import PlannedWidth, WidthGroup, WidthOption

ITEMS = (
    Item(0, 0, 2, "a", "fit", 40, -0.1),
    Item(0, 2, 3, "b", "keep", 10, -0.2),
    Item(1, 0, 1, "c", "merge", 9, 0.7),
)
PLAN = Plan("joint", ITEMS, latency_ns=56, objective=-0.1 + -0.2 + 0.7, original_ns=100)
FILE = PlanFile.of(PLAN, Budget.parse("0.6"), {"profile": "0" * 64, "importance": "f" * 64})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    write_plan(path, FILE)
    return path


def test_a_plan_knows_its_latency_and_speedup() -> None:
    assert (PLAN.latency_ms, PLAN.fixed_ns, PLAN.speedup) == (56e-6, -3, 100 / 56)
    assert replace(PLAN, latency_ns=0).speedup == float("inf")


def test_a_file_comes_back_as_it_went(path: Path) -> None:
    assert read_plan(path) == FILE


@given(st.lists(st.tuples(st.integers(0, 10**12), st.floats(-1e9, 1e9)), min_size=1, max_size=5))
def test_all_numbers_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]]) -> None:
    items = tuple(Item(0, i, i + 1, str(i), "fit", *row) for i, row in enumerate(rows))
    objective = 0.0
    for item in items:
        objective += item.value
    plan = Plan("joint", items, sum(item.latency_ns for item in items), objective, original_ns=10**13)
    file, path = PlanFile.of(plan, Budget.parse("1"), {}), tmp_path_factory.mktemp("plans") / "plan.json"
    write_plan(path, file)
    assert read_plan(path) == file


@given(narrowable(), st.data())
def test_widths_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, problem: Problem, data: st.DataObject
) -> None:
    frontier = solve(replace(problem, original_ns=10**12, fixed_ns=10**6))
    plan = frontier.plan(data.draw(st.integers(0, len(frontier) - 1)))
    file, path = PlanFile.of(plan, Budget.parse("1"), {}), tmp_path_factory.mktemp("plans") / "plan.json"
    write_plan(path, file)
    assert read_plan(path) == file
    named = {key: channels for item in plan.items for key, channels in item.widths}
    assert {width.group: width.channels for width in plan.widths} == named


def test_a_plan_without_widths_is_written_and_read_as_before_there_were_any(path: Path) -> None:
    golden = Path(__file__).parent / "assets" / "plan-without-widths.json"
    assert path.read_bytes() == golden.read_bytes()
    assert read_plan(golden) == FILE


NARROWED = Plan.of(
    Problem(
        (2,),
        items := (
            Item(0, 0, 1, "a", "keep", 10, 0.0, widths=(("g", 8),)),
            Item(0, 1, 2, "b", "keep", 10, -0.5, widths=(("g", 8), ("h", 4))),
        ),
        fixed_ns=1,
        original_ns=100,
        groups=(
            WidthGroup("h", (WidthOption(4, 0.0),)),
            WidthGroup("g", (WidthOption(16, 0.0), WidthOption(8, -0.25, -2))),
        ),
    ),
    items,
)


def test_widths_count_once_and_stand_in_the_order_of_the_items() -> None:
    assert NARROWED.widths == (PlannedWidth("g", 8, 16, -0.25, -2), PlannedWidth("h", 4, 4, 0.0))
    assert (NARROWED.latency_ns, NARROWED.objective, NARROWED.fixed_ns) == (19, -0.75, 1)


@pytest.mark.parametrize(
    ("width", "field", "value", "named"),
    [
        (0, "channels", 16, r"items: item 'a' .* there is no group 'g' of 8 channels"),
        (0, "group", "h", "items: group 'h' is there twice"),
        (0, "value", -0.5, "objective"),
        (1, "latency_ns", 1, "latency_ns"),
        (1, "group", "i", "items: item 'b' .* there is no group 'h' of 4 channels"),
        (1, "full", "4", r"widths\[1\]\.full"),
    ],
)
def test_a_wrong_width_is_named(path: Path, width: int, field: str, value: object, named: str) -> None:
    write_plan(path, PlanFile.of(NARROWED, Budget.parse("0.6"), {}))
    document = json.loads(path.read_text())
    document["widths"][width][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(TableError, match=rf"field ({named})"):
        read_plan(path)


def test_widths_that_no_item_names_are_refused(path: Path) -> None:
    write_plan(path, PlanFile.of(NARROWED, Budget.parse("0.6"), {}))
    document = json.loads(path.read_text())
    document["widths"].reverse()
    path.write_text(json.dumps(document))
    with pytest.raises(TableError, match=r"field widths: the items name the groups \['g', 'h'\]"):
        read_plan(path)


REFINED = (
    Refined(1, 2, 70, 70, 100, 0.5, 0.2, chosen=False),
    Refined(2, 1, PLAN.latency_ns, 60, 100, PLAN.objective, 0.1, chosen=True),
)


def test_plans_that_were_measured_come_back_too(path: Path) -> None:
    assert "refined" not in json.loads(path.read_bytes())
    file = PlanFile.of(PLAN, Budget.parse("0.6"), {}, REFINED)
    write_plan(path, file)
    assert read_plan(path) == file


def test_a_plan_that_was_measured_may_be_predicted_to_exceed_its_budget(path: Path) -> None:
    write_plan(path, PlanFile.of(PLAN, Budget.parse("0.55"), {}, REFINED))
    assert read_plan(path).plan == PLAN
    with pytest.raises(InputError, match="more than the budget"):
        write_plan(path, PlanFile.of(PLAN, Budget.parse("0.55"), {}))


@pytest.mark.parametrize(
    ("refined", "message"),
    [
        (REFINED[:1], "0 plans are the chosen one"),
        (REFINED[1:] * 2, "2 plans are the chosen one"),
        ((replace(REFINED[1], objective=0.5),), "the chosen one is not this plan"),
    ],
)
def test_what_was_measured_is_of_this_plan(path: Path, refined: tuple[Refined, ...], message: str) -> None:
    with pytest.raises(InputError, match=f"field refined: {message}"):
        write_plan(path, PlanFile.of(PLAN, Budget.parse("0.6"), {}, refined))


def test_what_is_known_of_an_item_comes_back_and_what_is_not_takes_no_room(path: Path) -> None:
    known = replace(ITEMS[0], low_ns=39, high_ns=45, kernel=0, depthwise=False, breaks=(1,), parts=("x", "y"))
    file = replace(FILE, plan=replace(PLAN, items=(known, *ITEMS[1:])))
    write_plan(path, file)
    assert read_plan(path) == file
    records = json.loads(path.read_text())["items"]
    assert set(records[1]) == {"chain", "start", "end", "key", "kind", "latency_ns", "value"}
    assert file.plan.keys == ("x", "y", "b", "c")


def test_the_file_says_what_it_is(path: Path) -> None:
    document = json.loads(path.read_text())
    assert list(document)[:2] == ["format", "version"]
    assert (document["format"], document["version"]) == ("trt-layermerge plan", 1)
    assert (document["budget"], document["budget_ns"]) == ("0.6", 60)


CHANGES: list[tuple[str, Any, str]] = [
    ("format", "a letter", "format"),
    ("version", 2, "version"),
    ("version", "1", "version"),
    ("method", None, "method"),
    ("budget", "soon", "budget"),
    ("budget_ns", 59, "budget_ns"),
    ("budget_ns", "60", "budget_ns"),
    ("latency_ns", 55, "latency_ns"),
    ("latency_ns", 55.5, "latency_ns"),
    ("original_ns", 0, "original_ns"),
    ("objective", 1.0, "objective"),
    ("objective", "high", "objective"),
    ("tables", {"profile": "short"}, r"tables\.profile"),
    ("items", [], "latency_ns"),
    ("items", [1], r"items\[0\]"),
    ("surprise", 1, "surprise"),
]


@pytest.mark.parametrize(("field", "value", "named"), CHANGES)
def test_a_wrong_field_is_named(path: Path, field: str, value: object, named: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(TableError, match=rf"plan\.json: field {named}[.:]") as error:
        read_plan(path)
    assert error.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize("field", ["format", "version", "items", "tables", "objective"])
def test_a_missing_field_is_named(path: Path, field: str) -> None:
    document = json.loads(path.read_text())
    del document[field]
    path.write_text(json.dumps(document))
    with pytest.raises(TableError, match=rf"plan\.json: field {field}: Field required"):
        read_plan(path)


@pytest.mark.parametrize(
    ("row", "field", "value", "named"),
    [
        (0, "latency_ns", "40", r"items\[0\]\.latency_ns"),
        (1, "value", float("nan"), r"items\[1\]\.value"),
        (1, "start", 1, "items: item 'b' .* does not follow layer 2"),
        (1, "kind", "fuse", "items: item 'b' .* kind 'fuse'"),
        (1, "key", "a", "items: item 'b'|items: item 'a'"),
        (2, "latency_ns", 8, "latency_ns"),
        (2, "value", 0.8, "objective"),
    ],
)
def test_a_wrong_item_is_named(path: Path, row: int, field: str, value: object, named: str) -> None:
    document = json.loads(path.read_text())
    document["items"][row][field] = value
    path.write_text(json.dumps(document))
    with pytest.raises(TableError, match=rf"field ({named})"):
        read_plan(path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": ', b"\xff\xfe"])
def test_what_is_not_a_plan_file_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"plan\.json: not a plan file"):
        read_plan(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.json: cannot read the plan: No such file"):
        read_plan(tmp_path / "none.json")


def test_a_plan_over_its_budget_is_neither_written_nor_read(path: Path) -> None:
    with pytest.raises(InputError, match="field latency_ns: 56 ns is more than the budget of 50 ns"):
        write_plan(path, PlanFile.of(PLAN, Budget.parse("0.5"), {}))
    assert read_plan(path) == FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"budget": "0.5", "budget_ns": 50}))
    with pytest.raises(TableError, match="field latency_ns: 56 ns is more than"):
        read_plan(path)
