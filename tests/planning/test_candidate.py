from __future__ import annotations

from dataclasses import fields, replace

from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.problem import TimedChoice

FIT = Candidate(1, 2, 4, "fit", "fit", 10, reducible=False, loss_before=0.5, loss_after=0.25)
KNOWN = replace(FIT, low_ns=9, high_ns=12, kernel=3, depthwise=True)


@given(st.sampled_from([FIT, KNOWN]), st.floats(allow_nan=False))
def test_an_item_is_its_candidate_with_a_value(candidate: Candidate, value: float) -> None:
    item = candidate.item(value)
    for one in fields(TimedChoice):
        assert getattr(item, one.name) == getattr(candidate, one.name)
    assert (item.value, item.breaks, item.parts) == (value, (), ())


def test_a_gain_is_what_the_loss_falls_by() -> None:
    assert FIT.gain == 0.25 and FIT.layers == 2
