"""Nodes that know widths: each layer's node, once for every combination of widths that may be settled there.

A channel group is *open* behind a layer if an item up to there may have named it and an item from there on may. Widths
of open groups are all that the rest of a plan has to know of what lies before it, so a residual stream stays open over
the branches beside it, and a group inside a branch is open for a layer or two. A group that is open, and that no item
has named yet, is so in the state; the edge that names it first carries what its width is worth and takes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trt_layermerge.errors import InputError
from trt_layermerge.planning.problem import Problem

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

States = npt.NDArray[np.int16]
"""Numbers of options, states by groups."""

UNNAMED = -1
MOST_EDGES = 6_000_000  # they take about two gigabytes


@dataclass(frozen=True, eq=False)
class Columns:
    """Items as arrays.

    Attributes:
        start: Node each begins at.
        end: Node each ends at.
        latency: Latency of each, in ns.
        value: Importance of each.
        item: Index of each in the items of the problem.
    """

    start: Ints
    end: Ints
    latency: Ints
    value: Floats
    item: Ints


@dataclass(frozen=True, eq=False)
class _Run:
    """Items for one block that name the same groups, in the same order; ``options`` are items by groups."""

    start: int
    groups: list[int]
    items: Ints
    options: Ints


@dataclass(frozen=True, eq=False)
class _Groups:
    """What options take and are worth, groups by options; and between which nodes a group is open.

    Attributes:
        latency: Latency of each option in ns.
        value: Value of each option.
        opened: Least node that an item which names the group begins at; behind it the group may be settled.
        closed: Largest such node; behind it nobody asks any more.
    """

    latency: Ints
    value: Floats
    opened: Ints
    closed: Ints


def expanded(problem: Problem, layers: Columns) -> tuple[Columns, Ints]:
    """Items between layers as edges between nodes that know widths.

    Args:
        problem: The problem.
        layers: Its items, each once, in order; nodes are numbers of layers, over all chains.

    Returns:
        Each item, once for each node that it may begin at; and the first node of each layer, at last the number of all.

    Raises:
        InputError: No tiling has items that agree about all widths, or there are too many widths at once.
    """
    groups, runs = _read(problem, layers)
    states, first = [np.full((1, len(problem.groups)), UNNAMED, np.int16)], [0, 1]
    found: list[tuple[npt.NDArray[np.generic], ...]] = []
    for layer in range(1, sum(problem.lengths) + 1):
        steps = [_extended(run, first[run.start], states[run.start], groups, layers) for run in runs[layer]]
        reached = np.concatenate([states[0][:0], *(after for after, *_ in steps)])
        reached[:, (groups.opened >= layer) | (groups.closed < layer)] = UNNAMED
        node, known = _distinct(reached)
        if steps:
            start, latency, value, item = (
                np.concatenate(column) for column in zip(*(s[1:] for s in steps), strict=True)
            )
            found.append((start, first[layer] + node, latency, value, item))
        states.append(known)
        first.append(first[-1] + len(known))
        _require_few(sum(len(item) for *_, item in found), known)
    if not len(states[-1]):
        raise InputError(
            "no tiling of the chains has items that agree about the widths of all groups",
            hint="every layer needs its 'keep' choice for each combination of the widths that it reads and writes",
        )
    return Columns(*(np.concatenate(column) for column in zip(*found, strict=True))), np.array(first)


def _read(problem: Problem, layers: Columns) -> tuple[_Groups, list[list[_Run]]]:
    """The groups, and the items by the layer they end at."""
    number, shape = {}, (len(problem.groups), max((len(group.options) for group in problem.groups), default=0))
    latency, value = np.zeros(shape, np.int64), np.zeros(shape)
    for row, group in enumerate(problem.groups):
        for column, option in enumerate(group.options):
            number[group.key, option.channels] = row, column
            latency[row, column], value[row, column] = option.latency_ns, option.value
    runs: dict[tuple[int, int, tuple[str, ...]], list[int]] = defaultdict(list)
    for index, (start, end) in enumerate(zip(layers.start.tolist(), layers.end.tolist(), strict=True)):
        runs[end, start, tuple([key for key, _ in problem.items[index].widths])].append(index)
    groups = _Groups(latency, value, np.full(shape[0], 2**62), np.full(shape[0], -1))
    ending: list[list[_Run]] = [[] for _ in range(sum(problem.lengths) + 1)]
    for (end, start, _), items in runs.items():
        named = [[number[pair] for pair in problem.items[index].widths] for index in items]
        rows = [row for row, _ in named[0]]
        groups.opened[rows] = np.minimum(groups.opened[rows], start)
        groups.closed[rows] = np.maximum(groups.closed[rows], start)
        options = np.array([[column for _, column in one] for one in named], np.int64).reshape(len(items), len(rows))
        ending[end].append(_Run(start, rows, np.array(items), options))
    return groups, ending


def _extended(
    run: _Run, first: int, states: States, groups: _Groups, layers: Columns
) -> tuple[States, Ints, Ints, Floats, Ints]:
    """States behind a block, with start, latency, value and item of the edge that leads to each."""
    _require_few(len(states) * len(run.items) // 16, states)  # of which few agree
    before = states[:, None, run.groups]
    state, which = np.nonzero(((before == UNNAMED) | (before == run.options)).all(axis=2))
    _require_few(len(state), states)
    after, item = states[state], run.items[which]
    latency, value = layers.latency[item], layers.value[item]
    for place, group in enumerate(run.groups):  # in this order values are added up elsewhere, too
        option = run.options[which, place]
        fresh = after[:, group] == UNNAMED
        latency = latency + np.where(fresh, groups.latency[group, option], 0)
        value = value + np.where(fresh, groups.value[group, option], 0.0)
        after[:, group] = option
    return after, first + state, latency, value, item


def _require_few(edges: int, states: States) -> None:
    """See that so many edges, that lead to these states or on from them, are not too many."""
    if edges > MOST_EDGES:
        raise InputError(
            f"too many widths at once: {len(states)} combinations of them behind one layer alone",
            hint="give groups fewer widths, or fix the widths of those that many layers lie between",
        )


def _distinct(rows: States) -> tuple[Ints, States]:
    """The number of each row among those that differ, and one of each."""
    number = np.zeros(len(rows), np.int64)
    for column in rows.T:
        if len(column) and (column != column[0]).any():
            number = np.unique(number * (column.max() + 2) + column, return_inverse=True)[1]
    first = np.unique(number, return_index=True)[1]
    return number, rows[first]
