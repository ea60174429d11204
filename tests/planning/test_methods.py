"""Each method admits what its paper admits and values it as its paper does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import InfeasibleBudgetError, InputError, UsageError
from trt_layermerge.planning.frontier import solve
from trt_layermerge.planning.methods import DEFAULT, METHODS, Candidate, formulate
from trt_layermerge.planning.problem import Problem

KEEP = Candidate(0, 0, 1, "keep", "keep", False, 10, loss_before=0.5, loss_after=0.5)
MERGE = replace(KEEP, key="merge", kind="merge", loss_after=0.75)
FIT = replace(KEEP, key="fit", kind="fit", loss_after=0.25)
GONE = replace(KEEP, key="gone", kind="identity", droppable=True, loss_after=2.5)
FIXED = replace(GONE, key="fixed", droppable=False)
ALL = (KEEP, MERGE, FIT, GONE, FIXED)


def values(problem: Problem) -> dict[str, float]:
    return {item.key: item.value for item in problem.items}


def test_joint_takes_all_and_values_the_change_of_the_loss() -> None:
    problem = formulate("joint", [1], ALL, fixed_ns=-3, original_ns=10)
    assert values(problem) == {"keep": 0.0, "merge": -0.25, "fit": 0.25, "gone": -2.0, "fixed": -2.0}
    assert (problem.lengths, problem.fixed_ns, problem.original_ns, problem.method) == ((1,), -3, 10, "joint")


def test_layermerge_knows_no_fits_drops_only_droppable_blocks_and_takes_the_exponential() -> None:
    problem = formulate("layermerge", [1], ALL, fixed_ns=0, original_ns=10)
    assert values(problem) == {"keep": 1.0, "merge": math.exp(-0.25), "gone": math.exp(-2.0)}


@given(st.floats(0, 10), st.floats(0, 10), st.sampled_from(sorted(set(METHODS) - {"depth"})))
def test_a_smaller_loss_is_never_worth_less(one: float, other: float, method: str) -> None:
    pair = [replace(KEEP, key=str(i), loss_after=loss) for i, loss in enumerate(sorted([one, other]))]
    worth = values(formulate(method, [1], pair, fixed_ns=0, original_ns=10))
    assert worth["0"] >= worth["1"]


def test_items_are_their_candidates() -> None:
    (item,) = formulate(DEFAULT, (2,), [replace(FIT, end=2)], 0, 10).items
    assert (item.chain, item.start, item.end, item.key, item.kind, item.latency_ns) == (0, 0, 2, "fit", "fit", 10)


def test_layer_only_keeps_or_drops_single_layers() -> None:
    pair = replace(GONE, key="pair", start=0, end=2)
    problem = formulate("layer-only", [2], [*ALL, pair, replace(KEEP, key="next", start=1, end=2)], 0, 10)
    assert values(problem) == {"keep": 1.0, "gone": math.exp(-2.0), "next": 1.0}


@given(st.sampled_from(sorted(METHODS)), st.floats(-1e6, 1e6))
def test_an_importance_that_is_given_is_taken_as_it_is(method: str, importance: float) -> None:
    problem = formulate(method, [1], [replace(KEEP, importance=importance)], 0, 10)
    assert values(problem) == {"keep": importance}


def test_what_is_known_of_a_candidate_stays_with_its_item() -> None:
    known = replace(KEEP, low_ns=9, high_ns=12, kernel=3, depthwise=True)
    (item,) = formulate(METHODS["joint"], [1], [known], 0, 10).items
    assert (item.low_ns, item.high_ns, item.kernel, item.depthwise, item.breaks) == (9, 12, 3, True, ())


@st.composite
def measured(draw: st.DrawFn) -> tuple[int, list[Candidate]]:
    """A chain with all kinds of choices, of which each method takes its own."""
    length = draw(st.integers(1, 4))
    blocks = [(s, e) for s in range(length) for e in range(s + 1, length + 1)]
    chosen = [(*block, "keep") for block in blocks if block[1] == block[0] + 1]
    kinds = st.sampled_from(["merge", "fit", "identity"])
    chosen += [(*block, draw(kinds)) for block in draw(st.lists(st.sampled_from(blocks), max_size=6))]
    return length, [
        Candidate(0, s, e, f"#{i}", kind, draw(st.booleans()), draw(st.integers(0, 30)), 0.0, draw(st.floats(-3, 3)))
        for i, (s, e, kind) in enumerate(chosen)
    ]


def admitted(method: str, one: Candidate) -> bool:
    single = one.end == one.start + 1
    match method, one.kind:
        case ("joint", _) | (_, "keep"):
            return True
        case "layermerge", kind:
            return kind == "merge" or (kind == "identity" and one.droppable)
        case _, kind:
            return kind == "identity" and one.droppable and single


@settings(max_examples=150, deadline=None)
@given(measured(), st.sampled_from(["joint", "layermerge", "layer-only"]), st.integers(0, 130))
def test_each_method_finds_the_best_plan_of_its_own(
    table: tuple[int, list[Candidate]], method: str, budget_ns: int
) -> None:
    length, candidates = table
    own = [one for one in candidates if admitted(method, one)]

    def plans(layer: int) -> Iterator[tuple[int, float]]:
        if layer == length:
            yield 0, 0.0
        for one in own:
            if one.start == layer:
                worth = -one.loss_after if method == "joint" else math.exp(-one.loss_after)
                for latency, value in plans(one.end):
                    yield latency + one.latency_ns, value + worth

    frontier = solve(formulate(method, [length], candidates, fixed_ns=0, original_ns=10))
    within = [value for latency, value in plans(0) if latency <= budget_ns]
    if within:
        plan = frontier.best(budget_ns)
        assert plan.latency_ns <= budget_ns
        assert plan.objective == pytest.approx(max(within), abs=1e-9)
    else:
        with pytest.raises(InfeasibleBudgetError):
            frontier.best(budget_ns)


@pytest.mark.parametrize(
    ("method", "loss"),
    [("joint", math.nan), ("joint", math.inf), ("layermerge", math.nan), ("layermerge", -1e9)],
)
def test_a_loss_that_makes_no_value_names_the_candidate(method: str, loss: float) -> None:
    with pytest.raises(InputError, match="'merge'"):
        formulate(method, [1], [replace(MERGE, loss_after=loss)], 0, 10)


@pytest.mark.parametrize(("name", "hint"), [("layermerg", "did you mean 'layermerge'"), ("?", "joint, layermerge")])
def test_an_unknown_method_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        formulate(name, [1], ALL, 0, 10)
