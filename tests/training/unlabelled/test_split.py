"""Samples are split by content: names, order and copies are of no consequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import TaskError
from trt_layermerge.training.unlabelled.split import FEWEST, Split, split

CONTENTS = st.sets(st.binary(min_size=2, max_size=4), min_size=FEWEST, max_size=60)


def contents(digests: list[bytes], parts: Split) -> list[list[bytes]]:
    return [[digests[index] for index in part] for part in (parts.training, parts.held_out, parts.test)]


@given(CONTENTS, st.data())
def test_order_and_copies_are_of_no_consequence(found: set[bytes], data: st.DataObject) -> None:
    once = sorted(found)
    again = data.draw(st.permutations(once + data.draw(st.lists(st.sampled_from(once), max_size=5))))
    assert contents(once, split(once, "a")) == contents(list(again), split(list(again), "b"))


@given(CONTENTS)
def test_each_content_is_in_one_part_and_none_is_empty(found: set[bytes]) -> None:
    digests = list(found)
    parts = contents(digests, split(digests, "a"))
    assert sorted(content for part in parts for content in part) == sorted(found)
    assert all(parts) and len(parts[0]) >= len(found) / 2


def test_copies_are_counted() -> None:
    parts = split([bytes([number // 2]) for number in range(20)], "a")
    assert len(parts.repeated) == 10 and "10 repeat others and are left out" in parts.in_words


def test_too_few_are_refused() -> None:
    with pytest.raises(TaskError, match=r"photos: there are 7 different samples; at least 8"):
        split([bytes([number % 7]) for number in range(50)], "photos")
