"""A problem as arrays: its chains laid end to end as one path of nodes, and its items as edges from node to node.

Where items name channel groups, there is a node for each combination of the widths that are settled and will still be
asked for: the state between two blocks is (layer, widths).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_layermerge.planning.problem import Problem
from trt_layermerge.planning.states import Columns, Floats, Ints, expanded

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Run:
    """Edges that end, or begin, behind one layer, by their nodes there: no value of one node depends on another's.

    Attributes:
        edges: The edges, in the order of these nodes.
        nodes: The nodes, ascending; those without edges are not there.
        first: Where in ``edges`` those of each node begin.
    """

    edges: slice | Ints
    nodes: Ints
    first: Ints

    def most(self, scores: Floats) -> Floats:
        """The largest score at each node: edges by columns become nodes by columns."""
        most: Floats = np.maximum.reduceat(scores, self.first, axis=0)
        return most

    def best(self, scores: Floats) -> Ints:
        """Which edge has it, of several the first: nodes by columns."""
        if len(self.nodes) == 1:
            return np.asarray(scores.argmax(axis=0))[None]
        sizes = np.diff(self.first, append=len(scores))
        best = scores == np.repeat(self.most(scores), sizes, axis=0)
        edges = np.where(best, np.arange(len(scores))[:, None], len(scores))
        first: Ints = np.minimum.reduceat(edges, self.first, axis=0)
        return first


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
        layers: Nodes ``layers[k]`` to ``layers[k + 1]`` lie behind layer k.
    """

    nodes: int
    start: Ints
    end: Ints
    latency: Ints
    value: Floats
    item: Ints
    first: Ints
    layers: Ints

    @staticmethod
    def of(problem: Problem, *, dominated: bool = False) -> Path:
        """The path of a problem, without items that another item for the same block beats, or with ``dominated``.

        Raises:
            InputError: Items name channel groups, and no tiling agrees about them.
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
        layers = np.arange(offset[-1] + 2)
        if any(item.widths for item in items):
            edges, layers = expanded(problem, edges)
        order = np.lexsort((-edges.value, edges.latency, edges.start, edges.end))
        if not dominated:
            order = order[_worthwhile(edges.start[order], edges.end[order], edges.value[order])]
        start, end, item = edges.start[order], edges.end[order], edges.item[order]
        return _indexed(layers, start, end, edges.latency[order], edges.value[order], item)

    def only(self, mask: Mask) -> Path:
        """The same nodes with some of the edges."""
        start, end, item = self.start[mask], self.end[mask], self.item[mask]
        return _indexed(self.layers, start, end, self.latency[mask], self.value[mask], item)

    def into(self, node: int) -> slice:
        """The edges that end at a node."""
        return slice(int(self.first[node]), int(self.first[node + 1]))

    def scores(self, run: Run, price: Floats, gain: Floats | float = 1.0) -> Floats:
        """``gain * value - price * latency`` of some edges, edges by prices."""
        scores: Floats = self.value[run.edges, None] * gain - self.latency[run.edges, None] * price
        return scores

    @cached_property
    def arriving(self) -> tuple[Run, ...]:
        """All edges by the nodes they end at, layer after layer."""
        return tuple(_runs(self.end, self.layers))

    @cached_property
    def leaving(self) -> tuple[Run, ...]:
        """All edges by the nodes they begin at, layer after layer."""
        order = np.argsort(self.start, kind="stable")
        runs = _runs(self.start[order], self.layers)
        return tuple(Run(order[run.edges], run.nodes, run.first) for run in runs)


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


def _runs(node: Ints, layers: Ints) -> Iterator[Run]:
    """Edges sorted by a node of each, in runs of one layer; layers without edges are passed over."""
    cuts = np.searchsorted(node, layers).tolist()
    for begin, end in pairwise(cuts):
        if begin < end:
            nodes, first = np.unique(node[begin:end], return_index=True)
            yield Run(slice(begin, end), nodes, first)


def _indexed(layers: Ints, start: Ints, end: Ints, latency: Ints, value: Floats, item: Ints) -> Path:
    nodes = int(layers[-1])
    first = np.searchsorted(end, np.arange(nodes + 1))
    return Path(nodes, start, end, latency, value, item, first, layers)


def _column(numbers: list[Any]) -> Ints:
    return np.array(numbers, np.int64)
