"""Pictures as parts of a page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.report.svg import COLOURS, Picture, colour


def drawn(tips: list[str], name: str = "one", marker: str = "o") -> str:
    picture = Picture(name)
    places = range(len(tips))
    picture.tell(picture.axes.scatter(places, places, marker=marker, color=colour("fit"), label="points"), tips)
    picture.legend()
    return str(picture.markup("what it shows"))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), min_size=1, max_size=20), st.sampled_from("oD*")
)
def test_every_point_has_its_own_tip_as_text(tips: list[str], marker: str) -> None:
    root = ElementTree.fromstring(drawn(tips, marker=marker))
    assert [one.get("data-tip") for one in root.iter() if one.get("data-tip") is not None] == tips


def test_colours_are_those_of_the_page() -> None:
    svg = drawn(["a"])
    assert "var(--fit)" in svg and "var(--text)" in svg and "var(--line)" in svg
    assert not re.findall(r"#[0-9a-f]{6}\b", svg), "no colour is right in both themes"
    assert len({colour(name) for name in COLOURS}) == len(COLOURS)


def test_pictures_of_one_page_keep_their_names_apart() -> None:
    one, other = (set(re.findall(r'\bid="([^"]+)"', drawn(["a"], name))) for name in ("one", "other"))
    assert one and other and not one & other
    svg = drawn(["a"])
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) and all(
        (first or second) in one for first, second in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
    )


def test_a_picture_is_text_without_script_that_fetches_nothing() -> None:
    svg = drawn(["a"])
    assert "<script" not in svg and "<style" not in svg and "://" not in svg and "what it shows" in svg
    assert svg == drawn(["a"]), "the same picture has the same bytes"


def test_too_few_tips_are_a_fault_of_ours() -> None:
    picture = Picture("one")
    picture.tell(picture.axes.scatter([1, 2], [1, 2]), ["one"])
    with pytest.raises(ValueError, match="zip"):
        picture.markup("")
