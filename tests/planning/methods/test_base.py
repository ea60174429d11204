"""What holds of every method by itself; what each must do by its own is in the conformance suite."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest

from tests.planning.methods.measured import MERGE
from trt_layermerge.errors import InputError, UsageError
from trt_layermerge.planning.methods.base import Method, method_setting
from trt_layermerge.planning.methods.joint import Joint
from trt_layermerge.planning.methods.layermerge import LayerMerge


@dataclass(frozen=True)
class Weighted(Joint):
    name = "weighted"

    weight: float = method_setting(0.5, "Weight of the loss.")
    rounds: int = method_setting(3, "How often.")
    derived: int = 7


@pytest.mark.parametrize(
    ("method", "loss"), [(Joint(), math.nan), (Joint(), math.inf), (LayerMerge(), math.nan), (LayerMerge(), -1e9)]
)
def test_a_loss_that_makes_no_value_names_the_item(method: Method, loss: float) -> None:
    with pytest.raises(InputError, match="'merge'"):
        method.problem([1], [replace(MERGE, loss_after=loss)], 0, 10)


def test_fields_that_are_said_to_be_settings_are() -> None:
    found = [(one.name, one.default, one.help) for one in Weighted(weight=0.25).settings]
    assert found[-2:] == [("weight", 0.5, "Weight of the loss."), ("rounds", 3, "How often.")]
    assert [one.name for one in Joint().settings] == ["widths"] and LayerMerge().settings == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_setting_is_finite(value: float) -> None:
    with pytest.raises(UsageError, match="method weighted: weight of"):
        Weighted(weight=value)


@pytest.mark.parametrize("missing", ["name", "fits", "adds_activations", "admits"])
def test_what_a_method_does_not_answer_is_named(missing: str) -> None:
    answers = {"name": "silent", "fits": False, "adds_activations": False, "admits": lambda self, choice: True}
    del answers[missing]
    with pytest.raises(TypeError, match=missing):
        type("Silent", (Method,), answers)()
