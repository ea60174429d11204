"""The exact Pareto frontier of a problem: every plan that is the best one for some latency budget, by one solve.

Partial plans that end at one node of the path, behind one layer and with the same open widths, are labels; a label that
is slower and not better than another one, or that provably leads to no plan of the frontier (``bounds``), is dropped.
Nothing is rounded or binned, unless a ``resolution`` is asked for, to bound the memory that huge tables take; the error
this causes is worked out and stated.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from trt_layermerge.errors import InfeasibleBudgetError, InputError, UsageError
from trt_layermerge.planning.bounds import Hull
from trt_layermerge.planning.budget import milliseconds
from trt_layermerge.planning.kbest import best_plans
from trt_layermerge.planning.path import Path, pareto, undominated
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.states import Floats, Ints

Links = npt.NDArray[np.int32]

FEW = 1000  # labels that are faster compared with each other than with bounds
BATCH = 4_000_000  # labels compared at once where memory is bounded
SCOUT = 0.1  # share of the gap between bounds and known plans in which the first pass looks for better plans


@dataclass(frozen=True, eq=False)
class Labels:
    """The partial plans of one node that none beats, by latency, and how each was made.

    Attributes:
        latency: Latencies in ns, strictly ascending.
        value: Values, strictly ascending.
        item: Last item of each, as an index into the problem's items.
        node: Node that item begins at.
        parent: Label of that node which the item extends.
    """

    latency: Ints
    value: Floats
    item: Links
    node: Links
    parent: Links


@dataclass(frozen=True, eq=False)
class Frontier:
    """All best plans of a problem: for every budget the one of largest value, of equal ones the fastest.

    Attributes:
        problem: What was solved.
        latency_ns: Predicted end-to-end latency of each plan in ns, strictly ascending.
        value: Objective of each plan, strictly ascending.
        labels: Partial plans of each node, for going back.
        error_ns: What a ``resolution`` can have cost, in ns: for every budget that a plan meets, the frontier has one
            that is worth as much within the budget plus this. 0 where the frontier is exact. Latencies are exact in
            any case, so no plan exceeds its budget, and the fastest plan is the fastest there is.
        impossible: How many plans, of no latency or a negative one, were left out of it; see ``possible``.
    """

    problem: Problem
    latency_ns: Ints
    value: Floats
    labels: tuple[Labels, ...]
    error_ns: int = 0
    impossible: int = 0

    def __len__(self) -> int:
        """Number of plans."""
        return len(self.value)

    def possible(self) -> Frontier:
        """Without the plans that are predicted to take no time at all, or less: nothing is as fast as that.

        Latencies of parts that were measured by themselves may add up to more than the whole takes.

        Raises:
            InputError: It has no others.
        """
        if not (first := bisect_right(self.latency_ns, 0)):
            return self
        if first == len(self):
            raise InputError(
                f"every plan is predicted to take no time at all, or less: with an original of "
                f"{milliseconds(self.problem.original_ns)}, the latencies of its parts cannot be right",
                hint="measure both on one device, batch and precision, and with nothing beside",
            )
        last = _some(self.labels[-1], np.arange(first, len(self)))
        labels = (*self.labels[:-1], last)
        return replace(
            self, latency_ns=self.latency_ns[first:], value=self.value[first:], labels=labels, impossible=first
        )

    def plan(self, index: int) -> Plan:
        """One plan of the frontier; 0 is the fastest, -1 the one of largest value.

        Raises:
            IndexError: There is no such plan.
        """
        return Plan.of(self.problem, self._items(range(len(self))[index]))

    def best(self, budget_ns: int) -> Plan:
        """The plan of largest value whose latency is at most the budget.

        Raises:
            InfeasibleBudgetError: Even the fastest plan is slower.
        """
        index = bisect_right(self.latency_ns, budget_ns) - 1
        if index < 0:
            fastest, outside = int(self.latency_ns[0]), self.problem.fixed_ns
            told = f"no plan meets a budget of {milliseconds(budget_ns)}: the fastest takes {milliseconds(fastest)}"
            hint = f"ask for {milliseconds(fastest)} or more, or allow larger blocks or narrower layers"
            if 2 * outside > budget_ns:
                told += f", {milliseconds(outside)} of it outside of all blocks"
                hint += ". On a busy machine the whole takes longer than its parts: another --output, when it is quiet"
            raise InfeasibleBudgetError(told, fastest_ms=fastest / 1e6, hint=hint)
        return self.plan(index)

    def best_plans(self, budget_ns: int, count: int) -> tuple[Plan, ...]:
        """The plans of largest value within a budget, the best one first; exact whatever the resolution (``kbest``).

        Args:
            budget_ns: Largest latency in ns, end to end.
            count: How many plans; there may be fewer within the budget.

        Raises:
            UsageError: The count is not positive.
            InfeasibleBudgetError: Even the fastest plan is slower.
        """
        if count < 1:
            raise UsageError(f"cannot give the {count} best plans", hint="ask for 1 or more")
        best = self.best(budget_ns)
        plans = self._first_plans(budget_ns, count, best.objective)
        if best.objective < plans[0].objective or best.items in [plan.items for plan in plans]:
            return plans
        return (best, *plans[:-1])  # worth as much as they are, but for the rounding of sums

    def _first_plans(self, budget_ns: int, count: int, known: float) -> tuple[Plan, ...]:
        """The plans of largest value, but for those that this frontier leaves out."""
        plans = best_plans(self.problem, budget_ns, looked_at := count, known)
        while self.impossible and len(plans) == looked_at and sum(plan.latency_ns > 0 for plan in plans) < count:
            plans = best_plans(self.problem, budget_ns, looked_at := 2 * looked_at, known)
        return tuple(plan for plan in plans if plan.latency_ns > 0 or not self.impossible)[:count]

    def around(self, budget_ns: int, count: int, beyond: float = 0.02) -> tuple[Plan, ...]:
        """Plans to measure where predictions are not to be trusted: the best within a budget, and some just over it.

        Up to a third of them are the first plans of the frontier over the budget, which may turn out to meet it; the
        others are the best within it. The caller measures, and takes none that does not keep the budget.

        Args:
            budget_ns: The budget in ns, end to end.
            count: How many plans; there may be fewer.
            beyond: By what share of the budget a plan may be predicted to exceed it; 0 for none that does.

        Returns:
            The plans by value, the largest first.

        Raises:
            UsageError: The count is not positive.
            InfeasibleBudgetError: Even the fastest plan is slower than the budget.
        """
        first = bisect_right(self.latency_ns, budget_ns)
        last = min(bisect_right(self.latency_ns, budget_ns * (1 + beyond)), first + count // 3)
        over = [self.plan(index) for index in range(first, last)]
        plans = [*over, *self.best_plans(budget_ns, count - len(over))]
        return tuple(sorted(plans, key=lambda plan: (-plan.objective, plan.latency_ns)))

    def shortfall(self, budget_ns: int) -> float:
        """By how much a better plan within the budget can surpass the one that ``best`` gives; 0 where it is exact.

        Raises:
            InfeasibleBudgetError: Even the fastest plan is slower.
        """
        return self.best(budget_ns + self.error_ns).objective - self.best(budget_ns).objective

    @property
    def fastest(self) -> Plan:
        """The plan of least latency."""
        return self.plan(0)

    def _items(self, label: int) -> tuple[Item, ...]:
        items: list[Item] = []
        node = len(self.labels) - 1
        while node > 0:
            labels = self.labels[node]
            items.append(self.problem.items[labels.item[label]])
            node, label = int(labels.node[label]), int(labels.parent[label])
        return tuple(reversed(items))


def solve(problem: Problem, resolution_ns: int | None = None) -> Frontier:
    """The frontier of a problem: exact, or within memory that is bounded.

    Exactly: a first pass looks only near the upper bounds. It finds plans so good that the second pass, which is
    exact, has little left to look at; where they are as good as hoped for, the first pass was exact itself.

    Args:
        problem: The problem.
        resolution_ns: Keep at most one partial plan for each so many ns of latency at each node, the best one, and the
            fastest: an upper bound for memory on huge tables. ``Frontier.error_ns`` says what it can cost.

    Raises:
        UsageError: The resolution is not positive.
    """
    path = Path.of(problem)
    if resolution_ns is None:
        return _frontier(problem, _exact(path), 0)
    if resolution_ns < 1:
        raise UsageError(f"a resolution of {resolution_ns} ns cannot be", hint="give 1 ns or more, or leave it out")
    return _frontier(problem, *_coarse(path, resolution_ns))


def _frontier(problem: Problem, labels: list[Labels], error_ns: int) -> Frontier:
    latency_ns, value = labels[-1].latency + problem.fixed_ns, labels[-1].value
    for column in (latency_ns, value):
        column.setflags(write=False)
    return Frontier(problem, latency_ns, value, tuple(labels), error_ns)


def _exact(path: Path) -> list[Labels]:
    hull = Hull.of(path)
    certain = hull.floor(hull.latency, hull.value)
    hopeful = hull.raised(certain, SCOUT)
    labels = _extend(path, hull, hopeful)
    last = labels[-1]
    certain = hull.floor(*undominated(np.append(hull.latency, last.latency), np.append(hull.value, last.value)))
    if np.any(certain < hopeful):
        labels = _extend(path, hull, certain)
    return labels


def _extend(path: Path, hull: Hull, floor: Floats) -> list[Labels]:
    """Labels of all nodes, but for some that are part of no plan whose score reaches the floor at any price."""
    path = path.only(hull.admits(path, floor))
    labels, empty = [_root()], _empty()
    for node in range(1, path.nodes):
        edges = path.into(node)
        labels.append(_extend_to(node, path, labels, hull, floor) if edges.stop > edges.start else empty)
    return labels


def _root() -> Labels:
    none = np.empty(0, np.int32)
    return Labels(np.zeros(1, np.int64), np.zeros(1), none, none, none)


def _empty() -> Labels:
    none = np.empty(0, np.int32)
    return Labels(np.empty(0, np.int64), np.empty(0), none, none, none)


def _extend_to(node: int, path: Path, labels: list[Labels], hull: Hull, floor: Floats) -> Labels:
    edges = path.into(node)
    start = path.start[edges].astype(np.int32)
    sizes = [len(labels[begin].value) for begin in start]
    latency = np.concatenate([labels[begin].latency for begin in start]) + np.repeat(path.latency[edges], sizes)
    value = np.concatenate([labels[begin].value for begin in start]) + np.repeat(path.value[edges], sizes)
    if not len(latency):
        return _empty()
    if len(value) > FEW:
        hopeful = np.flatnonzero(value >= hull.threshold(node, floor, latency))
        chosen = hopeful[pareto(latency[hopeful], value[hopeful])]
    else:
        chosen = pareto(latency, value)
    first = np.cumsum([0, *sizes])
    edge = np.searchsorted(first, chosen, side="right") - 1
    parent = (chosen - first[edge]).astype(np.int32)
    item = path.item[edges][edge].astype(np.int32)
    return Labels(latency[chosen], value[chosen], item, start[edge], parent)


def _coarse(path: Path, resolution_ns: int) -> tuple[list[Labels], int]:
    """Labels of all nodes, at most one for each cell of latency and the fastest, and the error this can cause in ns.

    By induction over the nodes: for each partial plan there is, a label at its node is worth as much and at most
    ``error`` slower. An edge adds the same to both, and a label that gives way to the best one of its cell adds
    the distance of the two. Bounds are not used: they compare with plans that may have given way themselves.
    """
    labels, error = [_root()], [0]
    for node in range(1, path.nodes):
        edges = path.into(node)
        kept, moved = _empty(), 0
        for batch in _batches(edges, [len(labels[begin].value) for begin in path.start[edges]]):
            kept, distance = _thinned(_joined(kept, _reached(batch, path, labels)), resolution_ns)
            moved = min(moved + distance, resolution_ns - 1)  # however often it gives way, it stays within its cell
        labels.append(kept)
        error.append(max((error[begin] for begin in path.start[edges]), default=0) + moved)
    return labels, error[-1]


def _batches(edges: slice, sizes: list[int]) -> Iterator[slice]:
    """The edges in runs that have about ``BATCH`` labels each."""
    first, total = edges.start, 0
    for edge, size in zip(range(edges.start, edges.stop), sizes, strict=True):
        if total and total + size > BATCH:
            yield slice(first, edge)
            first, total = edge, 0
        total += size
    if edges.stop > first:
        yield slice(first, edges.stop)


def _reached(edges: slice, path: Path, labels: list[Labels]) -> Labels:
    """What the labels become along some edges, one edge after the other."""
    start = path.start[edges].astype(np.int32)
    sizes = [len(labels[begin].value) for begin in start]
    return Labels(
        np.concatenate([labels[begin].latency for begin in start]) + np.repeat(path.latency[edges], sizes),
        np.concatenate([labels[begin].value for begin in start]) + np.repeat(path.value[edges], sizes),
        np.repeat(path.item[edges].astype(np.int32), sizes),
        np.repeat(start, sizes),
        np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
    )


def _joined(one: Labels, other: Labels) -> Labels:
    return Labels(
        np.append(one.latency, other.latency),
        np.append(one.value, other.value),
        np.append(one.item, other.item),
        np.append(one.node, other.node),
        np.append(one.parent, other.parent),
    )


def _thinned(labels: Labels, resolution_ns: int) -> tuple[Labels, int]:
    """The labels no other beats, of each cell the best and of all the fastest; and how far one gave way, in ns."""
    chosen = pareto(labels.latency, labels.value)
    if not len(chosen):
        return labels, 0
    latency = labels.latency[chosen]
    cell = latency // resolution_ns
    last = np.append(cell[1:] != cell[:-1], True)
    first = np.append(True, last[:-1])
    distance = latency[last] - latency[first]
    distance[0] = 0 if first[1:2].all() else latency[last][0] - latency[1]  # the fastest label of all stays
    last[0] = True
    return _some(labels, chosen[last]), int(distance.max())


def _some(labels: Labels, chosen: Ints) -> Labels:
    return Labels(
        labels.latency[chosen],
        labels.value[chosen],
        labels.item[chosen],
        labels.node[chosen],
        labels.parent[chosen],
    )
