"""Nodes know the widths that are settled and will be asked for, and no others."""

from __future__ import annotations

from itertools import pairwise, product
from unittest import mock

import pytest

from trt_layermerge.errors import InputError
from trt_layermerge.planning import states
from trt_layermerge.planning.path import Path
from trt_layermerge.planning.problem import Item, Problem
from trt_layermerge.planning.widths import WidthGroup, WidthOption


def keeps(*named: str) -> Problem:
    """A chain whose tensors are of these groups of two widths, each layer with its keep for all of them."""
    groups = tuple(WidthGroup(key, (WidthOption(2, 0.0), WidthOption(1, -1.0))) for key in dict.fromkeys(named))
    items = []
    for layer, pair in enumerate(pairwise(named)):
        for widths in product((2, 1), repeat=len(set(pair))):
            named_widths = tuple(zip(dict.fromkeys(pair), widths, strict=True))
            items.append(Item(0, layer, layer + 1, f"keep {layer + 1}", "keep", sum(widths), 0.0, widths=named_widths))
    return Problem((len(named) - 1,), tuple(items), 0, 100, groups=groups)


def sizes(problem: Problem) -> list[int]:
    layers = Path.of(problem).layers.tolist()
    return [end - start for start, end in pairwise(layers)]


def test_a_group_is_open_from_its_first_tensor_to_its_last() -> None:
    assert sizes(keeps("a", "b", "c", "d")) == [1, 2, 2, 1]


def test_a_stream_stays_open_beside_its_branches() -> None:
    assert sizes(keeps("image", "s", "x", "s", "y", "y", "s", "out")) == [1, 2, 4, 2, 4, 4, 2, 1]


def test_without_groups_there_is_a_node_for_each_layer() -> None:
    item = Item(0, 0, 3, "all", "fit", 1, 0.0)
    assert sizes(Problem((3,), (item,), 0, 1)) == [1, 1, 1, 1]


def test_groups_that_nothing_names_change_nothing() -> None:
    group = WidthGroup("g", (WidthOption(1, 0.0),))
    assert sizes(Problem((), (), 0, 1, groups=(group,))) == [1]
    assert sizes(Problem((1,), (Item(0, 0, 1, "all", "fit", 1, 0.0),), 0, 1, groups=(group,))) == [1, 1]


def test_items_that_cannot_agree_are_refused() -> None:
    problem = keeps("a", "b", "c")
    clash = [item for item in problem.items if (item.start == 0) == (("b", 2) in item.widths)]
    with pytest.raises(InputError, match="no tiling of the chains has items that agree"):
        Path.of(Problem(problem.lengths, tuple(clash), 0, 100, groups=problem.groups))


def test_too_many_widths_at_once_are_refused() -> None:
    names = [f"g{i}" for i in range(9)]
    with mock.patch.object(states, "MOST_EDGES", 500), pytest.raises(InputError, match="too many widths at once"):
        Path.of(keeps(*names, *reversed(names)))
