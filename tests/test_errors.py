from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.error_table import table
from trt_layermerge.errors import LONGEST, InputError, said

PAGE = Path(__file__).parents[1] / "docs" / "errors.md"


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text() == table(), "make docs/errors.md"


@given(text=st.text(max_size=3000))
def test_a_message_is_one_line_that_moves_no_cursor(text: str) -> None:
    message = InputError(f"the file {text} is none").message
    assert message.isprintable() and message.encode() and len(message) <= 10 * LONGEST, "an escape takes ten letters"


@given(name=st.text(st.characters(categories=["L", "N", "P"]), max_size=50))
def test_a_name_that_can_be_printed_is_left_alone(name: str) -> None:
    assert InputError(name).message == name


def test_what_libraries_say_fits_on_a_line() -> None:
    assert said(ValueError("one\n\ttwo")) == "one two" and len(said(ValueError("x" * 10**6))) == 400
    assert json.loads(json.dumps(InputError("\ud800").message)) == "\\ud800"
