from __future__ import annotations

from dataclasses import fields, replace
from math import nextafter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import UsageError
from trt_layermerge.importance.finetune import Tuning
from trt_layermerge.importance.gates import Gating

SETTINGS = [Tuning(), Gating()]


def test_tables_that_are_there_keep_their_keys() -> None:
    assert str(Tuning()) == "0.04 of the data, 1 epochs, lr 0.1, weight decay 0.0001, seed 0, norms behind fits"
    assert (
        str(Tuning(clip_norm=5))
        == "0.04 of the data, 1 epochs, lr 0.1, weight decay 0.0001, clip norm 5, seed 0, norms behind fits"
    )
    assert (
        str(Tuning(steps=20))
        == "0.04 of the data, 1 epochs, 20 steps, lr 0.1, weight decay 0.0001, seed 0, norms behind fits"
    )
    assert str(Gating()) == "penalty 0.1, 1 of the data, 1 epochs, lr 0.02, distillation 0, seed 0"


@pytest.mark.parametrize("settings", SETTINGS)
@given(value=st.floats(1e-6, 0.5))
def test_other_numbers_are_other_words_however_near(settings: Any, value: float) -> None:
    for field in fields(settings):
        if not field.type.startswith("int"):
            one, other = (replace(settings, **{field.name: number}) for number in (value, nextafter(value, 1)))
            assert str(one) != str(other)


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_number_is_in_the_words_and_is_checked(settings: Any) -> None:
    group = {"Tuning": "tuning", "Gating": "gates"}[type(settings).__name__]
    for field in fields(settings):
        others = [
            replace(settings, **{field.name: value})
            for value in ((1, 2) if field.type.startswith("int") else (0.5, 1.0))
        ]
        assert len({str(one) for one in others}) == 2
        with pytest.raises(UsageError, match=f"^{group}: {field.name} is -1"):
            replace(settings, **{field.name: -1})
