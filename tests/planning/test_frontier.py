"""The frontier is exact: three ways to solve a problem agree."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from itertools import pairwise, product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.instances import Point, all_plans, brute_force, narrowable, pareto, problems, totals
from trt_layermerge.errors import ExitCode, InfeasibleBudgetError, InputError, UsageError
from trt_layermerge.planning import frontier as solver
from trt_layermerge.planning.confidence import plan_for, probability
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.problem import Item, Problem, tiling_fault
from trt_layermerge.planning.reference import discretised
from trt_layermerge.planning.widths import WidthGroup, WidthOption


def large(seed: int, layers: int = 24) -> Problem:
    """A problem too large for brute force, on which bounds have much to say."""
    random = np.random.default_rng(seed)
    spans = [(s, e) for s in range(layers) for e in range(s + 1, layers + 1) for _ in range(3)]
    keys = (f"#{i}" for i in range(len(spans)))
    items = [
        Item(0, s, e, key, "fit", int((e - s) * random.integers(1, 10**6)), float((s - e) * random.random() ** 2))
        for (s, e), key in zip(spans, keys, strict=True)
    ]
    return Problem((layers,), tuple(items), fixed_ns=0, original_ns=1)


def layer_by_layer(problem: Problem) -> list[Point]:
    """The frontier of a problem of one chain, without any bounds."""
    labels: list[list[Point]] = [[(0, 0.0)]]
    for node in range(1, problem.lengths[0] + 1):
        ending = [item for item in problem.items if item.end == node]
        labels.append(pareto({(t + i.latency_ns, v + i.value) for i in ending for t, v in labels[i.start]}))
    return labels[-1]


def large_narrowable(seed: int, layers: int = 12) -> Problem:
    """The same with widths: a residual stream on every third tensor, and inner groups between."""
    random = np.random.default_rng(seed)
    key = [f"stream {t // 9}" if t % 3 == 0 else f"inner {t}" for t in range(layers + 1)]
    options = {k: [WidthOption(c, float(random.integers(-8, 1)), int(random.integers(-9, 9))) for c in (3, 2, 1)]
               for k in dict.fromkeys(key)}  # fmt: skip
    items = []
    for start, end in ((s, e) for s in range(layers) for e in range(s + 1, min(layers, s + 4) + 1)):
        for widths in product((3, 2, 1), repeat=len({key[start], key[end]})):
            named = tuple(zip(dict.fromkeys((key[start], key[end])), widths, strict=True))
            latency = int((end - start) * sum(widths) * random.integers(50, 100))
            items.append(
                Item(0, start, end, f"{start}-{end}", "fit", latency, -float(random.integers(0, 9)), widths=named)
            )
    groups = tuple(WidthGroup(k, tuple(found)) for k, found in options.items())
    return Problem((layers,), tuple(items), fixed_ns=0, original_ns=1, groups=groups)


def width_by_width(problem: Problem) -> list[Point]:
    """The frontier of a problem of one chain, without any bounds, for all widths that were ever named."""
    worth = {(group.key, option.channels): option for group in problem.groups for option in group.options}
    last = {key: item.start for item in sorted(problem.items, key=lambda one: one.start) for key, _ in item.widths}
    labels: list[dict[frozenset[tuple[str, int]], set[Point]]] = [{frozenset(): {(0, 0.0)}}]
    for node in range(1, problem.lengths[0] + 1):
        here: dict[frozenset[tuple[str, int]], set[Point]] = defaultdict(set)
        for item in (one for one in problem.items if one.end == node):
            for before, found in labels[item.start].items():
                after = before | set(item.widths)
                if len(dict(after)) == len(after):
                    fresh = [worth[width] for width in item.widths if width not in before]
                    latency = item.latency_ns + sum(option.latency_ns for option in fresh)
                    value = item.value + sum(option.value for option in fresh)
                    asked = frozenset(width for width in after if last[width[0]] >= node)
                    here[asked] |= {(t + latency, v + value) for t, v in found}
        labels.append({widths: set(pareto(found)) for widths, found in here.items()})
    return pareto(set().union(*labels[-1].values()))


def points(frontier: Frontier) -> list[Point]:
    return list(zip(frontier.latency_ns.tolist(), frontier.value.tolist(), strict=True))


@settings(max_examples=250, deadline=None)
@given(problems() | narrowable(), st.sampled_from([0, solver.FEW]))
def test_it_is_what_brute_force_finds(problem: Problem, few: int) -> None:
    with mock.patch.object(solver, "FEW", few):  # 0: bounds are used even where they do not pay
        assert points(solve(problem)) == brute_force(problem)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("few", [0, solver.FEW])
@pytest.mark.parametrize("scout", [0.001, solver.SCOUT, 1.0])
def test_bounds_lose_nothing(seed: int, few: int, scout: float) -> None:
    problem = large(seed)
    with mock.patch.object(solver, "FEW", few), mock.patch.object(solver, "SCOUT", scout):
        assert points(solve(problem)) == layer_by_layer(problem)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("few", [0, solver.FEW])
@pytest.mark.parametrize("scout", [0.001, solver.SCOUT, 1.0])
def test_bounds_lose_no_width(seed: int, few: int, scout: float) -> None:
    problem = large_narrowable(seed)
    with mock.patch.object(solver, "FEW", few), mock.patch.object(solver, "SCOUT", scout):
        assert points(solve(problem)) == width_by_width(problem)


def test_bounds_drop_most_labels() -> None:
    problem = large(seed=0)
    unbounded = solver.FEW * 10**6
    with mock.patch.object(solver, "FEW", 0):
        few = sum(len(labels.value) for labels in solve(problem).labels)
    with mock.patch.object(solver, "FEW", unbounded):
        assert few < sum(len(labels.value) for labels in solve(problem).labels)


@settings(max_examples=100, deadline=None)
@given(problems() | narrowable())
def test_every_plan_tiles_the_chains_and_adds_up(problem: Problem) -> None:
    frontier = solve(problem)
    assert len(frontier) == len(frontier.value) >= 1
    for index in range(len(frontier)):
        plan = frontier.plan(index)
        assert tiling_fault(plan.items, problem.lengths) is None
        assert totals(problem, plan.items) == (plan.latency_ns, plan.objective) == points(frontier)[index]
        assert plan.fixed_ns == problem.fixed_ns
    assert frontier.fastest == frontier.plan(0)
    assert frontier.plan(-1) == frontier.plan(len(frontier) - 1)


@settings(max_examples=100, deadline=None)
@given(problems() | narrowable())
def test_it_rises_strictly(problem: Problem) -> None:
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points(solve(problem))))


@settings(max_examples=100, deadline=None)
@given(problems() | narrowable(), st.integers(-50, 10**9))
def test_the_best_plan_keeps_the_budget_and_none_within_it_is_better(problem: Problem, budget_ns: int) -> None:
    frontier = solve(problem)
    within = [value for latency, value in brute_force(problem) if latency <= budget_ns]
    if within:
        plan = frontier.best(budget_ns)
        assert plan.latency_ns <= budget_ns
        assert plan.objective == max(within)
    else:
        with pytest.raises(InfeasibleBudgetError):
            frontier.best(budget_ns)


@settings(max_examples=100, deadline=None)
@given(problems(st.integers(0, 60)) | narrowable(st.integers(0, 60)), st.integers(-20, 150), st.integers(1, 9))
def test_bins_never_beat_it(problem: Problem, budget_ns: int, bin_ns: int) -> None:
    binned = discretised(problem, budget_ns, bin_ns)
    if binned is not None:
        assert binned.latency_ns <= budget_ns
        assert tiling_fault(binned.items, problem.lengths) is None
        assert binned.objective <= solve(problem).best(budget_ns).objective


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(-20, 150))
def test_bins_that_divide_all_latencies_match_it(data: st.DataObject, bin_ns: int, budget_ns: int) -> None:
    problem = data.draw(problems(st.integers(0, 12).map(lambda bins: bins * bin_ns)))
    binned = discretised(problem, budget_ns, bin_ns)
    if binned is None:
        with pytest.raises(InfeasibleBudgetError):
            solve(problem).best(budget_ns)
    else:
        assert binned.objective == solve(problem).best(budget_ns).objective


@settings(max_examples=150, deadline=None)
@given(problems() | narrowable(), st.integers(1, 40) | st.integers(1, 10**9), st.sampled_from([1, 3, solver.BATCH]))
def test_a_resolution_costs_no_more_than_it_says(problem: Problem, resolution_ns: int, batch: int) -> None:
    with mock.patch.object(solver, "BATCH", batch):
        coarse = solve(problem, resolution_ns)
    exact = solve(problem)
    assert coarse.fastest.latency_ns == exact.fastest.latency_ns
    assert 0 <= coarse.error_ns <= sum(problem.lengths) * (resolution_ns - 1)
    assert exact.error_ns == 0
    for latency, value in points(exact):
        assert coarse.best(latency + coarse.error_ns).objective >= value - 1e-9
        assert coarse.best(latency).latency_ns <= latency
        assert coarse.best(latency).objective + coarse.shortfall(latency) >= value - 1e-9
        assert exact.shortfall(latency) == 0
    for index in range(len(coarse)):
        plan = coarse.plan(index)
        assert tiling_fault(plan.items, problem.lengths) is None
        assert totals(problem, plan.items) == (plan.latency_ns, plan.objective)


@pytest.mark.parametrize("resolution_ns", [10**5, 10**6, 10**7])
def test_a_resolution_bounds_the_labels(resolution_ns: int) -> None:
    for labels in solve(large(seed=1), resolution_ns).labels[1:]:
        cells = int(labels.latency[-1]) // resolution_ns - int(labels.latency[0]) // resolution_ns + 1
        assert len(labels.value) <= cells + 1


def test_the_finest_resolution_is_exact() -> None:
    problem = large(seed=2)
    assert points(solve(problem, 1)) == points(solve(problem))
    assert solve(problem, 1).error_ns == 0


def test_a_resolution_of_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="resolution of 0 ns"):
        solve(large(seed=0, layers=3), 0)


def test_a_budget_nobody_can_meet_names_the_fastest_plan() -> None:
    keep = Item(0, 0, 1, "keep", "keep", 22_300_000, 0.0)
    frontier = solve(Problem((1,), (keep,), fixed_ns=1, original_ns=30_000_000))
    with pytest.raises(InfeasibleBudgetError, match=r"budget of 10 ms: the fastest takes 22\.300001 ms") as error:
        frontier.best(10_000_000)
    assert error.value.exit_code is ExitCode.INFEASIBLE
    assert int(error.value.exit_code) == 4
    assert error.value.fastest_ms == 22.300001
    assert "22.300001 ms or more" in str(error.value)


@pytest.mark.parametrize(("outside", "said"), [(6_000_000, True), (4_000_000, False)])
def test_what_no_plan_can_save_is_told_where_it_is_most_of_a_budget(outside: int, said: bool) -> None:
    keep = Item(0, 0, 1, "keep", "keep", 22_000_000, 0.0)
    frontier = solve(Problem((1,), (keep,), fixed_ns=outside, original_ns=30_000_000))
    with pytest.raises(InfeasibleBudgetError) as error:
        frontier.best(10_000_000)
    assert ("6 ms of it outside of all blocks" in str(error.value)) == said == ("when it is quiet" in str(error.value))


def test_of_equal_choices_the_first_wins() -> None:
    twins = tuple(Item(0, 0, 1, key, "merge", 5, 1.0) for key in "ab")
    assert solve(Problem((1,), twins, 0, 10)).fastest.items == twins[:1]


def test_there_is_no_plan_beyond_the_last() -> None:
    frontier = solve(Problem((), (), fixed_ns=3, original_ns=10))
    assert points(frontier) == [(3, 0.0)]
    with pytest.raises(IndexError):
        frontier.plan(1)


def test_a_frontier_cannot_be_written_to() -> None:
    frontier = solve(large(seed=0, layers=3))
    with pytest.raises(ValueError, match="read-only"):
        frontier.value[0] = 9.0


@settings(max_examples=100, deadline=None)
@given(problems() | narrowable(), st.integers(1, 40))
def test_what_would_take_no_time_is_left_out(problem: Problem, count: int) -> None:
    whole = solve(problem)
    wanted = [point for point in points(whole) if point[0] > 0]
    if not wanted:
        with pytest.raises(InputError, match=r"every plan .* no time at all.*original of 0\.0001 ms"):
            whole.possible()
        return
    frontier = whole.possible()
    assert points(frontier) == wanted and frontier.impossible == len(whole) - len(wanted)
    for index, (latency, _) in enumerate(wanted):
        assert frontier.plan(index) == frontier.best(latency) == whole.best(latency)
        within = [totals(problem, items) for items in all_plans(problem)]
        values = sorted((v for t, v in within if t <= latency and (t > 0 or not frontier.impossible)), reverse=True)
        plans = frontier.best_plans(latency, count)
        assert [plan.objective for plan in plans] == pytest.approx(values[:count], abs=1e-9)
        assert probability(plan_for(frontier, latency, 0.4).plan, latency) >= 0.4
    with pytest.raises(InfeasibleBudgetError):
        frontier.best(wanted[0][0] - 1)


def test_planning_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import importlib, pkgutil, sys, trt_layermerge.planning as all\n"
        "for module in pkgutil.iter_modules(all.__path__): importlib.import_module(f'{all.__name__}.{module.name}')\n"
        "sys.exit(' '.join({'torch', 'onnx', 'onnxruntime', 'tensorrt'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
