from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import UsageError
from trt_layermerge.runtimes.nvidia.build_routes import build_routes

word = st.text("abcxyz:_0123", min_size=1, max_size=6)
values = st.lists(word, min_size=1, max_size=4)


@given(st.lists(st.tuples(word, values, st.booleans()), max_size=5))
def test_what_is_written_as_trtexec_takes_it_is_read(knobs: list[tuple[str, list[str], bool]]) -> None:
    text = " ".join(f"-{name}=[{'|'.join(each)}]" if tried else f"-{name}={each[0]}" for name, each, tried in knobs)
    fixed, tried = build_routes(text)
    assert fixed == tuple(f"-{name}={each[0]}" for name, each, several in knobs if not several)
    assert tried == tuple(f"-{name}={value}" for name, each, several in knobs if several for value in each)


@pytest.mark.parametrize("text", ["slice=on", "-slice", "-slice=", "-slice=[]", "-slice=[on|]", "-a=b|c", "-a=[b c]"])
def test_what_is_no_knob_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no knob"):
        build_routes(text)
