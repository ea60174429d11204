"""The discretised dynamic program of the LayerMerge paper, for tests and comparisons to agree with.

Slow and plain on purpose: nothing here is shared with ``frontier``. Latencies are rounded *up* to bins, so its
plans keep the budget (the paper's code rounds down), but it may miss plans that only fit without the rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

from trt_layermerge.planning.plan import Plan
from trt_layermerge.planning.problem import Item, Problem

_Settled = frozenset[tuple[str, int]]
"""Widths of groups."""


@dataclass(frozen=True)
class _Cell:
    """The best way found to turn the first layers within some bins of latency."""

    value: float
    items: tuple[Item, ...]


def discretised(problem: Problem, budget_ns: int, bin_ns: int) -> Plan | None:
    """The best plan within a budget when every block takes a whole number of bins; None where there is none.

    M[l, t] = max over (l', k) of M[l', t - T[l', l, k]] + I[l', l, k] (arXiv 2406.12837, section 4), with T in bins.
    The layers of all chains are numbered through. Where there are channel groups, there is one such table for each
    combination of widths that items have named so far, however long ago.

    Args:
        problem: The problem.
        budget_ns: Largest latency in ns, end to end.
        bin_ns: Width of a bin in ns; time and memory grow with budget_ns / bin_ns.
    """
    bins = (budget_ns - problem.fixed_ns) // bin_ns
    if bins < 0:
        return None
    nothing = _Cell(-math.inf, ())
    options = {(group.key, option.channels): option for group in problem.groups for option in group.options}
    table: list[dict[_Settled, list[_Cell]]] = [{frozenset(): [_Cell(0.0, ())] * (bins + 1)}]
    for ending in _items_by_layer(problem):
        rows: dict[_Settled, list[_Cell]] = {}
        for start, item in ending:
            for settled, before in table[start].items():
                after = settled | set(item.widths)
                if len(dict(after)) < len(after):  # a group of two widths
                    continue
                row = rows.setdefault(after, [nothing] * (bins + 1))
                fresh = [options[width] for width in item.widths if width not in settled]
                cost = -(-(item.latency_ns + sum(option.latency_ns for option in fresh)) // bin_ns)
                gain = reduce(lambda sum, option: sum + option.value, fresh, item.value)
                for t in range(max(cost, 0), bins + 1 + min(cost, 0)):
                    if before[t - cost].value + gain > row[t].value:
                        row[t] = _Cell(before[t - cost].value + gain, (*before[t - cost].items, item))
        table.append(rows)
    best = max((row[bins] for row in table[-1].values()), key=lambda cell: cell.value, default=nothing)
    return None if best.value == -math.inf else Plan.of(problem, best.items)


def _items_by_layer(problem: Problem) -> list[list[tuple[int, Item]]]:
    """For each layer, numbered through all chains, the items that end at it, each with the layer it starts after."""
    ending: list[list[tuple[int, Item]]] = [[] for _ in range(sum(problem.lengths))]
    for item in problem.items:
        start, end = sum(problem.lengths[: item.chain]), sum(problem.lengths[: item.last_chain])
        ending[end + item.end - 1].append((start + item.start, item))
    return ending
