from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.errors import ExitCode, IncompatibleError, TableError
from trt_layermerge.regression.deliveries import DeliveryComparison, compare_deliveries

ASSETS = Path(__file__).parents[1] / "delivery" / "assets"
GOLDEN = read_manifest(ASSETS / "manifest-v1.json")
PROFILE = Path(__file__).parents[1] / "latency" / "assets" / "profile-v1.jsonl"


def delivery(speedup: float = 2.0, width: float = 0.005, pace: float = 1.0, **changes: Any) -> Manifest:
    """A manifest of a speed-up, whose latencies have intervals of so much on either side."""

    def figures(of: Any, latency: float, accuracy: float | None) -> Any:
        interval = (latency * (1 - width), latency * (1 + width))
        return of.model_copy(update={"latency_ms": latency, "latency_ci_ms": interval, "accuracy": accuracy})

    accuracy = changes.pop("accuracy", 0.93)
    updated = {
        "original": figures(GOLDEN.original, 4.0 * pace, 0.935),
        "compressed": figures(GOLDEN.compressed, 4.0 * pace / speedup, accuracy),
        "speedup": speedup,
    }
    return GOLDEN.model_copy(update=updated | changes)


def code(found: DeliveryComparison) -> int:
    return 0 if found.objection is None else int(found.objection.exit_code)


speedups, widths = st.floats(0.5, 4), st.floats(0.0001, 0.2)


@given(speedups, widths)
def test_a_delivery_is_the_same_as_itself(speedup: float, width: float) -> None:
    found = compare_deliveries(delivery(speedup, width), delivery(speedup, width), 0.05)
    assert found.verdict == "same" and found.slowdown.value == 1 and code(found) == 0


@given(speedups, widths, speedups, widths, st.floats(0.2, 5))
def test_a_machine_of_another_speed_changes_no_verdict(a: float, b: float, c: float, d: float, pace: float) -> None:
    old = delivery(a, b)
    plain, slow = (compare_deliveries(old, delivery(c, d, speed), 0.0512345) for speed in (1.0000001, pace))
    assert plain.verdict == slow.verdict
    assert slow.latencies.original.value == pytest.approx(pace)


@given(speedups, widths, speedups, widths)
def test_the_reverse_of_a_fall_is_a_rise(a: float, b: float, c: float, d: float) -> None:
    there, back = (
        compare_deliveries(delivery(a, b), delivery(c, d), 0.05),
        compare_deliveries(delivery(c, d), delivery(a, b), 0.05),
    )
    swapped = {"slower": "faster", "faster": "slower"}
    assert back.verdict == swapped.get(there.verdict, there.verdict)


@pytest.mark.parametrize(
    ("speedup", "width", "expected", "exit_code"),
    [
        (1.8, 0.005, "slower", 7),
        (1.8, 0.05, "unclear", 8),
        (2.0, 0.05, "unclear", 8),
        (1.95, 0.01, "same", 0),
        (2.3, 0.01, "faster", 0),
        (3.0, 0.05, "faster", 0),
    ],
)
def test_what_became_of_a_speedup_of_2(speedup: float, width: float, expected: str, exit_code: int) -> None:
    found = compare_deliveries(delivery(2.0, width), delivery(speedup, width, 1.01), 0.05)
    assert (found.verdict, code(found)) == (expected, exit_code)
    assert found.slowdown.value == pytest.approx(2.0 / speedup)
    if exit_code:
        assert f"2.000x to {speedup:.3f}x" in str(found.objection)


def test_accuracy_is_shown_and_evaluated_on_request() -> None:
    old, new = delivery(accuracy=0.93), delivery(accuracy=0.92)
    assert compare_deliveries(old, new, 0.05).accuracy_change == pytest.approx(-1)
    assert [code(compare_deliveries(old, new, 0.05, allowed)) for allowed in (None, 1.01, 0.99, 0)] == [0, 0, 7, 7]
    assert "changed by -1" in str(compare_deliveries(old, new, 0.05, 0.5).objection)
    assert code(compare_deliveries(new, old, 0.05, 0)) == 0


def test_what_is_no_accuracy_is_evaluated_in_its_own_unit() -> None:
    old, new = (delivery(accuracy=value, metric="minus MSE") for value in (-0.02, -0.03))
    found = compare_deliveries(old, new, 0.05, 0.005)
    assert found.accuracy_change == pytest.approx(-0.01) and code(found) == 7


def test_accuracy_that_is_not_there_cannot_be_evaluated() -> None:
    old, new = delivery(), delivery(accuracy=None)
    assert compare_deliveries(old, new, 0.05).accuracy_change is None
    with pytest.raises(TableError, match="holds none"):
        compare_deliveries(old, new, 0.05, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 16}, "batch: 8, here 16"),
        ({"model": "/elsewhere/other.py"}, r"model: model\.py, here other\.py"),
        ({"metric": "minus MSE"}, "metric: None, here minus MSE"),
        ({"simulated": True}, "simulated: False, here True"),
    ],
)
def test_deliveries_of_something_else_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(IncompatibleError, match=words) as caught:
        compare_deliveries(delivery(), delivery(**change), 0.05)
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE


@pytest.mark.parametrize("field", ["name", "runtime", "precision", "timing", "clocks", "settings", "driver"])
def test_deliveries_for_another_device_are_refused(field: str) -> None:
    device = replace(GOLDEN.device, **{field: "fp16" if field == "precision" else "other"})
    with pytest.raises(IncompatibleError, match=f"{field}: .*, here "):
        compare_deliveries(delivery(), delivery(device=device), 0.05)


def test_releases_are_compared_on_request_and_paths_do_not_matter() -> None:
    newer = delivery(device=replace(GOLDEN.device, runtime_version="1.32.0"), model="/ci/17/model.py")
    with pytest.raises(IncompatibleError, match="pass --across runtime_version"):
        compare_deliveries(delivery(), newer, 0.05)
    assert compare_deliveries(delivery(), newer, 0.05, across=["runtime_version"]).across == (
        "runtime_version: 1.31.1, here 1.32.0",
    )


def test_an_old_manifest_says_nothing_of_the_compute_capability() -> None:
    new = delivery(device=replace(GOLDEN.device, compute_capability="7.5"))
    assert compare_deliveries(delivery(), new, 0.05).verdict == "same"


@pytest.mark.parametrize("width", [-0.1, 1.0, 1.5])
def test_latencies_that_cannot_be_are_refused(width: float) -> None:
    with pytest.raises(TableError, match="the new manifest has a latency"):
        compare_deliveries(delivery(), delivery(width=width), 0.05)
