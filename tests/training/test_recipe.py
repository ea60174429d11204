from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import UsageError
from trt_layermerge.training.recipe import Recipe


@settings(database=None)
@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.99), lr=st.floats(1e-4, 10))
def test_the_learning_rate_rises_to_its_peak_then_falls_to_nearly_nothing(steps: int, warmup: float, lr: float) -> None:
    recipe = Recipe(lr=lr, warmup=warmup)
    rates = [recipe.lr_at(step, steps) for step in range(steps)]
    rising = round(warmup * steps)
    assert all(0 < rate <= lr for rate in rates)
    assert rates[:rising] == sorted(rates[:rising])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    assert math.isclose(max(rates), lr)


def test_the_schedule_by_hand() -> None:
    recipe = Recipe(lr=1.0, warmup=0.2)
    rates = [recipe.lr_at(step, 10) for step in range(10)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.0, 0.5 + 0.5 * math.cos(math.pi / 8)])
    assert rates[6] == pytest.approx(0.5)  # half way down
    assert recipe.lr_at(10, 10) == pytest.approx(0)


def test_steps_fall_at_their_milestones_and_a_constant_does_not() -> None:
    recipe = Recipe(lr=1.0, warmup=0.2, schedule="step", milestones=(0.5, 0.75), decay=0.1)
    rates = [recipe.lr_at(step, 8) for step in range(8)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert {Recipe(lr=3.0, warmup=0, schedule="constant").lr_at(step, 8) for step in range(8)} == {3.0}


@given(decouple=st.floats(0, 0.99), steps=st.integers(1, 300))
def test_fading_begins_at_nothing_and_is_done_before_the_end(decouple: float, steps: int) -> None:
    recipe = Recipe(decouple=decouple)
    shares = [recipe.faded_at(step, steps) for step in range(steps + 1)]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert shares[0] == (0.0 if decouple > 0 else 1.0)
    assert all(share == 1.0 for step, share in enumerate(shares) if step >= decouple * steps)


def test_the_average_forgets_its_start() -> None:
    recipe = Recipe(average=0.999)
    assert [recipe.average_at(step) for step in (0, 90, 10**6)] == pytest.approx([0.1, 0.91, 0.999])


def test_steps_go_before_epochs() -> None:
    assert Recipe(epochs=3).steps_of(7) == 21
    assert Recipe(epochs=3, steps=5).steps_of(7) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("lr", 0.0),
        ("lr", math.inf),
        ("lr", math.nan),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("warmup", 1.0),
        ("distillation", 1.1),
        ("temperature", 0.0),
        ("seed", -1),
        ("seed", 2**63),
        ("precision", "fp64"),
        ("steps", 0),
        ("batch_size", 0),
        ("label_smoothing", 1.0),
        ("accumulation", 0),
        ("optimizer", "lion"),
        ("schedule", "linear"),
        ("milestones", (0.5, 0.2)),
        ("milestones", (1.0,)),
        ("decay", 0.0),
        ("average", 1.0),
        ("decouple", 1.0),
        ("gate_penalty", -0.1),
        ("gate_penalty", math.inf),
        ("clip_norm", 0.0),
        ("checkpoint_seconds", -1.0),
    ],
)
def test_a_number_out_of_range_is_named(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"{field} is ") as caught:
        Recipe(**{field: value})
    assert caught.value.exit_code == 2
