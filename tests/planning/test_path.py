"""Edges are found by the nodes they end at and begin at; of equal scores the first edge counts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.instances import narrowable, problems
from trt_layermerge.planning.path import Path, Run
from trt_layermerge.planning.problem import Problem


@given(problems() | narrowable())
def test_runs_hold_every_edge_once(problem: Problem) -> None:
    path = Path.of(problem)
    for runs, ends in ((path.arriving, path.end), (path.leaving, path.start)):
        edges = [np.arange(len(path.item))[run.edges] for run in runs]
        assert sorted(np.concatenate([[], *edges]).tolist()) == list(range(len(path.item)))
        for run, own in zip(runs, edges, strict=True):
            sizes = np.diff(run.first, append=len(own))
            assert np.repeat(run.nodes, sizes).tolist() == ends[own].tolist()


@given(problems() | narrowable())
def test_no_edge_leads_from_a_node_to_another_behind_the_same_layer(problem: Problem) -> None:
    path = Path.of(problem)
    layer = np.repeat(np.arange(len(path.layers) - 1), np.diff(path.layers))
    assert (layer[path.start] < layer[path.end]).all()


@given(st.lists(st.lists(st.integers(-2, 2), min_size=1, max_size=4), min_size=1, max_size=4))
def test_the_first_of_the_best(scores: list[list[int]]) -> None:
    first = np.cumsum([0, *map(len, scores)])[:-1]
    run = Run(slice(0, sum(map(len, scores))), np.arange(len(scores)), first)
    column = np.array([[float(score)] for own in scores for score in own])
    assert run.most(column).tolist() == [[max(own)] for own in scores]
    assert run.best(column).tolist() == [
        [begin + own.index(max(own))] for begin, own in zip(first.tolist(), scores, strict=True)
    ]
