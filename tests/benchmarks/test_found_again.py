"""What agreement on text is of: boxes around the parts of a map that hang together."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.found_again import LEAST_SIDE, boxes_in, text_boxes

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.lists(
        st.lists(st.booleans(), min_size=size[1], max_size=size[1]), min_size=size[0], max_size=size[0]
    )
)


def flooded(mask: list[list[bool]]) -> list[list[int]]:
    """The same by taking one pixel after the other, with what it touches."""
    left = {(row, column) for row, line in enumerate(mask) for column, text in enumerate(line) if text}
    boxes = []
    while left:
        part, todo = set[tuple[int, int]](), [left.pop()]
        while todo:
            row, column = one = todo.pop()
            part.add(one)
            touched = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= touched
            todo += touched
        rows, columns = zip(*part, strict=True)
        boxes.append([min(columns), min(rows), max(columns) + 1, max(rows) + 1])
    return sorted(box for box in boxes if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE)


@given(masks)
def test_boxes_are_those_of_what_hangs_together(mask: list[list[bool]]) -> None:
    assert sorted(boxes_in(torch.tensor([mask]))[0].tolist()) == flooded(mask)


def drawn(*boxes: tuple[int, int, int, int]) -> dict[str, Tensor]:
    text = torch.zeros(1, 1, 20, 40)
    for left, top, right, bottom in boxes:
        text[..., top:bottom, left:right] = 0.9
    return {"map": text}


def test_a_box_that_is_cut_in_two_counts_half_and_a_missing_one_nothing() -> None:
    wanted = drawn((2, 2, 22, 8), (2, 12, 22, 18))
    assert text_boxes(wanted, wanted).tolist() == [1.0]
    assert text_boxes(drawn((2, 2, 22, 8)), wanted).tolist() == [0.5]
    assert text_boxes(drawn((2, 2, 12, 8), (14, 2, 22, 8), (2, 12, 22, 18)), wanted).tolist() == [0.5]  # (0.5 + 1) / 3
