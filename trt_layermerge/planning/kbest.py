"""The plans of largest value within one budget, exactly, and not only the first of them: close ones can be measured.

First, from the last node back, the best completion of every partial plan for every latency that is left; partial
completions that cannot reach the value of the plans looked for are dropped by the Lagrangian bounds of the hull.
Then a best-first search, which with exact completions never goes wrong: each step belongs to one of the plans found.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count as counter

import numpy as np

from trt_layermerge.planning.bounds import Hull
from trt_layermerge.planning.path import Mask, Path, undominated
from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Problem
from trt_layermerge.planning.states import Floats, Ints

PRICES = 9  # prices around the budget whose bounds are looked at
WIDEN = 4.0  # how much deeper to look when there were not enough plans
DEPTHS = 8  # how often, before nothing is dropped any more

Edges = tuple[int, "Edges"] | None


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Upper bounds on values for one budget, of some prices."""

    price: Floats
    before: Floats
    after: Floats
    slack: float
    budget: int

    @staticmethod
    def of(hull: Hull, budget: int) -> _Bounds:
        edge = int(np.searchsorted(hull.latency, budget, side="right")) - 1
        near = slice(max(0, edge - PRICES // 2), edge + PRICES // 2 + 1)
        slack = 2 * float(hull.slack[near].max())
        return _Bounds(hull.price[near], hull.before[:, near], hull.after[:, near], slack, budget)

    @property
    def top(self) -> float:
        """No plan within the budget has a larger value."""
        return float((self.after[0] + self.price * self.budget).min())

    def admits(self, path: Path, floor: float) -> Mask:
        """Which edges some plan of that value may use."""
        mask = np.zeros(len(path.item), np.bool_)
        for run in path.arriving:
            # At every price this bounds a plan within the budget through the edge, so one that falls short is enough.
            score = path.scores(run, self.price) + self.price * self.budget
            score += self.before[path.start[run.edges]] + self.after[path.end[run.edges]]
            mask[run.edges] = (score >= floor - self.slack).all(axis=1)
        return mask

    def reaches(self, node: int, latency: Ints, value: Floats, floor: float) -> Mask:
        """Which completions from a node, of these latencies and values, are part of some plan of that value."""
        before = self.before[node] + np.outer(self.budget - latency, self.price)
        mask: Mask = value + before.min(axis=1) >= floor - self.slack
        return mask


@dataclass(frozen=True, eq=False)
class _Outgoing:
    """Edges by the node they begin at."""

    order: Ints
    first: Ints

    @staticmethod
    def of(path: Path) -> _Outgoing:
        order = np.argsort(path.start, kind="stable")
        return _Outgoing(order, np.searchsorted(path.start[order], np.arange(path.nodes + 1)))

    def of_node(self, node: int) -> Ints:
        return self.order[self.first[node] : self.first[node + 1]]


def best_plans(problem: Problem, budget_ns: int, count: int, known: float = -np.inf) -> tuple[Plan, ...]:
    """The plans of largest value within a budget, the best one first, of equal ones the fastest first.

    Plans differ if they differ in any choice. Values that differ by less than the rounding of their sums count as
    equal. There are fewer than ``count`` only if no more plans are within the budget.

    Args:
        problem: The problem.
        budget_ns: Largest latency in ns, end to end.
        count: How many plans.
        known: Value of some plan within the budget, if one is known: the nearer to the best, the less there is to do.
    """
    path = Path.of(problem, dominated=True)  # a plan with an item that another beats may be the second best
    hull, budget = Hull.of(path), budget_ns - problem.fixed_ns
    if count < 1 or budget < hull.latency[0]:  # not even the fastest plan is within the budget
        return ()
    bounds = _Bounds.of(hull, budget)
    # The best plan is worth at least this; the k-th is expected no further below than the bound lies above.
    good = max(known, float(hull.value[np.searchsorted(hull.latency, budget, side="right") - 1]))
    width = max(bounds.top - good, 1e-6 * abs(good), bounds.slack)
    found: list[tuple[float, Edges]] = []
    for depth in range(DEPTHS + 1):  # the last time without a floor: then it is exact whatever the guess was
        floor = good - width * WIDEN**depth if depth < DEPTHS else -np.inf
        found = _search(path.only(bounds.admits(path, floor)), bounds, floor, count)
        if len(found) == count and found[-1][0] >= floor:  # what was left out is worth less than all of these
            break
    plans = [_plan(problem, edges) for _, edges in found]
    return tuple(sorted(plans, key=lambda plan: (-plan.objective, plan.latency_ns)))


def _search(path: Path, bounds: _Bounds, floor: float, count: int) -> list[tuple[float, Edges]]:
    """The best plans by value, those below the floor left out or in a wrong order; edges count as items."""
    outgoing = _Outgoing.of(path)
    labels = _completions(path, outgoing, bounds, floor)
    ticket, found = counter(), list[tuple[float, Edges]]()
    heap: list[tuple[float, int, int, int, int, float, Edges]] = []
    for value, total in _completed(labels[0], 0, 0.0, bounds.budget):
        heap.append((-value, total, next(ticket), 0, 0, 0.0, None))
    while heap and len(found) < count:
        best, _, _, node, latency, value, edges = heapq.heappop(heap)
        if node == path.nodes - 1:  # complete, and no other can become better than it is: it is the next best
            found.append((-best, edges))
            continue
        for edge in outgoing.of_node(node).tolist():
            end, item = int(path.end[edge]), int(path.item[edge])
            spent, gained = latency + int(path.latency[edge]), value + float(path.value[edge])
            # Nothing comes of an edge behind which no completion is left: it is over budget, or below the floor.
            for reached, total in _completed(labels[end], spent, gained, bounds.budget):
                heapq.heappush(heap, (-reached, total, next(ticket), end, spent, gained, (item, edges)))
        if len(heap) > 4 * count + 64:  # each entry is a plan of its own, so the others are never needed
            heap = heapq.nsmallest(count, heap)
    return found


def _completions(path: Path, outgoing: _Outgoing, bounds: _Bounds, floor: float) -> list[tuple[Ints, Floats]]:
    """For each node the ways on to the last one that none beats: latencies and values, both ascending."""
    quickest = _quickest(path)
    none = np.empty(0, np.int64), np.empty(0)
    labels: list[tuple[Ints, Floats]] = [none] * path.nodes
    labels[-1] = np.zeros(1, np.int64), np.zeros(1)
    for node in range(path.nodes - 2, -1, -1):
        edges = outgoing.of_node(node)
        ends = path.end[edges].tolist()
        if not ends:  # it leads nowhere; one that is over budget may come back into it by what a region saves
            continue
        sizes = [len(labels[end][0]) for end in ends]
        latency = np.concatenate([labels[end][0] for end in ends]) + np.repeat(path.latency[edges], sizes)
        value = np.concatenate([labels[end][1] for end in ends]) + np.repeat(path.value[edges], sizes)
        fits = latency <= bounds.budget - quickest[node]  # else no beginning is fast enough for them
        latency, value = latency[fits], value[fits]
        if floor > -np.inf and len(latency):  # without a floor every completion counts
            reaches = bounds.reaches(node, latency, value, floor)
            latency, value = latency[reaches], value[reaches]
        # One that is slower and worth less is part of plans, too, but the search asks for the best in the time left.
        labels[node] = undominated(latency, value) if len(latency) else none
    return labels


def _quickest(path: Path) -> list[int]:
    """Least latency from the first node to each."""
    quickest = np.full(path.nodes, 2**61, np.int64)
    quickest[0] = 0
    for run in path.arriving:
        taken = quickest[path.start[run.edges]] + path.latency[run.edges]
        quickest[run.nodes] = np.minimum.reduceat(taken, run.first)
    result: list[int] = quickest.tolist()
    return result


def _completed(label: tuple[Ints, Floats], latency: int, value: float, budget: int) -> Iterator[tuple[float, int]]:
    """Value and latency of the best plan that a partial one can become, if it can become one."""
    index = int(np.searchsorted(label[0], budget - latency, side="right")) - 1
    if index >= 0:
        yield value + float(label[1][index]), latency + int(label[0][index])


def _plan(problem: Problem, edges: Edges) -> Plan:
    items = []
    while edges is not None:
        item, edges = edges
        items.append(problem.items[item])
    return Plan.of(problem, reversed(items))
