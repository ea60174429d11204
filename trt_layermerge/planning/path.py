"""A problem as arrays: its chains laid end to end as one path of nodes, and its items as edges from node to node.

Where items name channel groups, there is a node for each combination of the widths that are settled and will still be
asked for: the state between two blocks is (layer, widths).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_layermerge.planning.problem import Problem
from trt_layermerge.planning.states import Columns, expanded

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Path:
    """Edges sorted by the node they end at; node 0 is the input of the first chain.

    Attributes:
        nodes: Number of nodes; the last is the output of the last chain.
        start: Node each edge begins at.
        end: Node each edge ends at, ascending.
        latency: Latency of each edge, in ns.
        value: Importance of each edge.
        item: Index of each edge in the items of the problem.
        first: Edges ``first[n]`` to ``first[n + 1]`` end at node n.
        stages: Nodes ``stages[k]`` to ``stages[k + 1]`` lie behind one layer: no edge leads from one to another.
    """

    nodes: int
    start: Ints
    end: Ints
    latency: Ints
    value: Floats
    item: Ints
    first: Ints
    stages: Ints

    @staticmethod
    def of(problem: Problem, *, dominated: bool = False) -> Path:
        """The path of a problem, without items that another item for the same block beats, or with ``dominated``.

        Raises:
            InputError: There are channel groups, and no tiling whose items agree about them.
        """
        items = problem.items
        offset = np.concatenate([[0], np.cumsum(problem.lengths, dtype=np.int64)])
        edges = Columns(
            offset[_column([item.chain for item in items])] + _column([item.start for item in items]),
            offset[_column([item.last_chain for item in items])] + _column([item.end for item in items]),
            _column([item.latency_ns for item in items]),
            np.array([item.value for item in items], np.float64),
            np.arange(len(items)),
        )
        stages = np.arange(offset[-1] + 2)
        if problem.groups:
            edges, stages = expanded(problem, edges)
        order = np.lexsort((-edges.value, edges.latency, edges.start, edges.end))
        if not dominated:
            order = order[_worthwhile(edges.start[order], edges.end[order], edges.value[order])]
        start, end, item = edges.start[order], edges.end[order], edges.item[order]
        return _indexed(stages, start, end, edges.latency[order], edges.value[order], item)

    def only(self, mask: Mask) -> Path:
        """The same nodes with some of the edges."""
        start, end, item = self.start[mask], self.end[mask], self.item[mask]
        return _indexed(self.stages, start, end, self.latency[mask], self.value[mask], item)

    def into(self, node: int) -> slice:
        """The edges that end at a node."""
        return slice(int(self.first[node]), int(self.first[node + 1]))


def pareto(latency: Ints, value: Floats) -> Ints:
    """Indices of the points no other point beats, by latency; of equal points the one that comes first."""
    order = np.argsort(latency, kind="stable")
    latency, value = latency[order], value[order]
    rises = np.ones(len(order), np.bool_)
    rises[1:] = value[1:] > np.maximum.accumulate(value)[:-1]
    order, latency = order[rises], latency[rises]
    last = np.ones(len(order), np.bool_)
    last[:-1] = latency[1:] > latency[:-1]  # of several with one latency only the last, the best, is on the frontier
    return order[last]


def undominated(latency: Ints, value: Floats) -> tuple[Ints, Floats]:
    """The points no other point beats, by latency: both columns strictly ascending."""
    chosen = pareto(latency, value)
    return latency[chosen], value[chosen]


def _worthwhile(start: Ints, end: Ints, value: Floats) -> Mask:
    """Which edges have a larger value than all before them from the same start to the same end."""
    fresh = np.ones(len(start), np.int64)
    fresh[1:] = (start[1:] != start[:-1]) | (end[1:] != end[:-1])
    rank = np.unique(value, return_inverse=True)[1]
    height = np.cumsum(fresh) * len(start) + rank  # a later block lies above all earlier ones: one running maximum
    rises = np.ones(len(start), np.bool_)
    rises[1:] = height[1:] > np.maximum.accumulate(height)[:-1]
    return rises


def _indexed(stages: Ints, start: Ints, end: Ints, latency: Ints, value: Floats, item: Ints) -> Path:
    nodes = int(stages[-1])
    first = np.searchsorted(end, np.arange(nodes + 1))
    return Path(nodes, start, end, latency, value, item, first, stages)


def _column(numbers: list[Any]) -> Ints:
    return np.array(numbers, np.int64)
