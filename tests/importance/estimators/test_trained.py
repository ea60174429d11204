from __future__ import annotations

from dataclasses import fields, replace
from math import nextafter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.estimators.gates import Gates

TRAINED = [Finetune(), Gates()]


def test_tables_that_are_there_keep_their_keys() -> None:
    plain = "0.04 of the data, 1 epochs, lr 0.1, weight decay 0.0001, seed 0, norms behind fits"
    assert Finetune().in_words == plain
    assert Finetune(clip_norm=5).in_words == plain.replace(", seed", ", clip norm 5, seed")
    assert Finetune(steps=20).in_words == plain.replace(", lr", ", 20 steps, lr")
    assert Gates().in_words == "penalty 0.1, 1 of the data, 1 epochs, lr 0.02, distillation 0, seed 0"


@pytest.mark.parametrize("estimator", TRAINED)
@given(value=st.floats(1e-6, 0.5))
def test_other_numbers_are_other_words_however_near(estimator: Any, value: float) -> None:
    for field in fields(estimator):
        if not field.type.startswith("int"):
            one, other = (replace(estimator, **{field.name: number}) for number in (value, nextafter(value, 1)))
            assert one.in_words != other.in_words


@pytest.mark.parametrize("estimator", TRAINED)
def test_every_number_is_in_the_words_and_is_checked(estimator: Any) -> None:
    for field in fields(estimator):
        others = [
            replace(estimator, **{field.name: value})
            for value in ((1, 2) if field.type.startswith("int") else (0.5, 1.0))
        ]
        assert len({one.in_words for one in others}) == 2
        with pytest.raises(UsageError, match=f"^{estimator.group}: {field.name} is -1"):
            replace(estimator, **{field.name: -1})
