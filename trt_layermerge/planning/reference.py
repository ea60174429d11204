"""The discretised dynamic program of the LayerMerge paper, for tests and comparisons to agree with.

Slow and plain on purpose: nothing here is shared with ``frontier``. Latencies are rounded *up* to bins, so its
plans keep the budget (the paper's code rounds down), but it may miss plans that only fit without the rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item, Problem


@dataclass(frozen=True)
class _Cell:
    """The best way found to turn the first layers within some bins of latency."""

    value: float
    items: tuple[Item, ...]


def discretised(problem: Problem, budget_ns: int, bin_ns: int) -> Plan | None:
    """The best plan within a budget when every block takes a whole number of bins; None where there is none.

    M[l, t] = max over (l', k) of M[l', t - T[l', l, k]] + I[l', l, k] (arXiv 2406.12837, section 4), with T in bins.
    The layers of all chains are numbered through.

    Args:
        problem: The problem.
        budget_ns: Largest latency in ns, end to end.
        bin_ns: Width of a bin in ns; time and memory grow with budget_ns / bin_ns.
    """
    bins = (budget_ns - problem.fixed_ns) // bin_ns
    if bins < 0:
        return None
    nothing = _Cell(-math.inf, ())
    table = [[_Cell(0.0, ())] * (bins + 1)]
    for ending in _items_by_layer(problem):
        row = [nothing] * (bins + 1)
        for start, item in ending:
            cost = -(-item.latency_ns // bin_ns)
            for t in range(max(cost, 0), bins + 1 + min(cost, 0)):
                before = table[start][t - cost]
                if before.value + item.value > row[t].value:
                    row[t] = _Cell(before.value + item.value, (*before.items, item))
        table.append(row)
    best = table[-1][bins]
    return None if best.value == -math.inf else _plan(problem, best)


def _items_by_layer(problem: Problem) -> list[list[tuple[int, Item]]]:
    """For each layer, numbered through all chains, the items that end at it, each with the layer it starts after."""
    ending: list[list[tuple[int, Item]]] = [[] for _ in range(sum(problem.lengths))]
    for item in problem.items:
        start, end = sum(problem.lengths[: item.chain]), sum(problem.lengths[: item.last_chain])
        ending[end + item.end - 1].append((start + item.start, item))
    return ending


def _plan(problem: Problem, cell: _Cell) -> Plan:
    latency_ns = problem.fixed_ns + sum(item.latency_ns for item in cell.items)
    return Plan(problem.method, cell.items, latency_ns, cell.value, problem.original_ns)
