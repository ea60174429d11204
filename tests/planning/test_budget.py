"""Budgets are exact in decimal, are never exceeded by a rounding, and say what is wrong with them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import ExitCode, UsageError
from trt_layermerge.planning.budget import Budget, milliseconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0.6", 60), ("1", 100), (".29", 29), ("0.00002ms", 20), ("22.3 ms", 22_300_000), ("1.8x", 55), (" 1x ", 100)],
)
def test_budgets_in_ns_for_an_original_of_100_ns(text: str, nanoseconds: int) -> None:
    assert Budget.parse(text).nanoseconds(100) == nanoseconds


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0", "above 0"),
        ("0.0ms", "above 0"),
        ("1.01", "above 1"),
        ("60", "above 1"),
        ("0.9x", "1 or more"),
        ("0x", "1 or more"),
        ("-0.5", "cannot read"),
        ("fast", "cannot read"),
        ("", "cannot read"),
        ("5 s", "cannot read"),
        ("nan", "cannot read"),
    ],
)
def test_what_cannot_be_a_budget_is_a_usage_error(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault) as error:
        Budget.parse(text)
    assert error.value.exit_code is ExitCode.USAGE
    assert "22.3ms" in str(error.value)


@pytest.mark.parametrize("speedup", [0.0, 0.99, -2.0, float("nan"), float("inf")])
def test_a_speedup_below_one_is_a_usage_error(speedup: float) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        Budget.from_speedup(speedup)


@given(st.floats(1, 1e6), st.integers(1, 10**12))
def test_a_speedup_is_reached_by_the_least_margin(speedup: float, original_ns: int) -> None:
    budget_ns = Budget.from_speedup(speedup).nanoseconds(original_ns)
    exact = Fraction(repr(speedup))
    assert budget_ns * exact <= original_ns < (budget_ns + 1) * exact


@given(st.sampled_from(["0.6", "0.60", "22.3ms", "1.8x", "1x"]) | st.floats(1e-9, 1).map(lambda x: f"{x:.12f}"))
def test_text_round_trips(text: str) -> None:
    assert str(Budget.parse(text)) == text


@given(st.integers(-(10**15), 10**15))
def test_milliseconds_are_exact(latency_ns: int) -> None:
    text = milliseconds(latency_ns)
    assert Fraction(text.removesuffix(" ms")) * 10**6 == latency_ns
    assert "E" not in text
