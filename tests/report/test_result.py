from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.conftest import ASSETS
from trt_layermerge.delivery.also import Also
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import ExitCode
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.report.result import Result
from trt_layermerge.report.summary import EXCEEDED, MISSED

KEYS = [
    "original", "compressed", "speedup", "predicted_latency_ms", "prediction_error", "prediction_missed", "proof",
    "engine", "manifest", "report",
]  # fmt: skip


def test_the_keys_that_programs_read(manifest: Manifest) -> None:
    found = Result(manifest, Path("job")).as_json()
    assert list(found) == KEYS
    assert list(found["original"]) == list(found["compressed"]) == [
        "latency_ms", "latency_ci_ms", "accuracy", "layers", "parameters", "flops", "depth", "peak_activation_bytes"
    ]  # fmt: skip
    assert found["speedup"] == manifest.speedup and found["compressed"]["layers"] == manifest.compressed.layers
    assert (found["engine"], found["report"]) == (f"job/{manifest.engine}", "job/report.html")


def test_what_is_no_measurement_and_what_is_no_accuracy_comes_first(manifest: Manifest) -> None:
    double = manifest.model_copy(update={"simulated": True, "metric": "minus MSE"})
    found = Result(double, Path("job")).as_json()
    assert list(found) == ["simulated", "metric", *KEYS] and found["metric"] == "minus MSE"


@pytest.mark.parametrize(("share", "missed"), [(0.5, True), (0.9, False), (1.1, False), (1.2, True)])
def test_programs_see_a_prediction_that_is_far_off(manifest: Manifest, share: float, missed: bool) -> None:
    predicted = manifest.model_copy(update={"predicted_latency_ms": share * manifest.compressed.latency_ms})
    found = Result(predicted, Path("job")).as_json()
    assert found["prediction_error"] == pytest.approx(share - 1) and found["prediction_missed"] is missed


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.5, 2), st.booleans())
def test_an_engine_is_slower_than_planned_by_prediction_or_by_budget(
    share: float, slack: float, drift: float, refined: bool
) -> None:
    """The budget is at the speed that the machine has now, as the prediction is."""
    manifest = read_manifest(ASSETS / "manifest-v1.json")
    manifest = manifest if refined else manifest.model_copy(update={"refined": []})
    measured = manifest.compressed.latency_ms
    plan = manifest.plan | {"budget_ns": slack * measured * 1e6 / drift}
    changed = {"predicted_latency_ms": share * measured, "drift": drift, "plan": plan}
    found = Result(manifest.model_copy(update=changed), Path("job"))
    late = share < 1 - MISSED or slack * (1 + EXCEEDED) < 1
    assert (found.objection is not None) is late
    if found.objection is not None:
        assert found.objection.exit_code is ExitCode.INCONCLUSIVE
        said = "--refine" if not manifest.refined else "a larger budget"
        assert said in str(found.objection)
    words = found.prediction.objection
    assert (words is None) is not (late or share > 1 + MISSED)
    if words is not None:
        assert f"{measured:.3f} ms measured, {share * measured:.3f} ms predicted" in words
        assert ("slower than planned" if late else "faster than planned") in words


@pytest.mark.parametrize(
    ("also", "engine", "skipped"),
    [
        (Also("tensorrt", Path("job/a.engine")), "job/a.engine", None),
        (Also("tensorrt", skipped="no GPU"), None, "no GPU"),
    ],
)
def test_one_more_engine_is_told_or_why_there_is_none(
    manifest: Manifest, also: Also, engine: str | None, skipped: str | None
) -> None:
    found = Result(manifest, Path("job"), also).as_json()
    assert found["also"] == {"runtime": "tensorrt", "engine": engine, "skipped": skipped}


def test_a_speed_up_in_another_runtime_is_told_with_its_latencies(manifest: Manifest) -> None:
    timings = PerNetwork(Timing.of([3e6] * 6), Timing.of([2e6] * 6))
    also = Also("estimate", Path("job/a.engine"), timings=timings, simulated=True)
    found = Result(manifest, Path("job"), also).as_json()["also"]
    assert (found["speedup"], found["original_latency_ms"], found["compressed_latency_ms"]) == (1.5, 3.0, 2.0)
    assert found["simulated"] is True


def test_launches_are_told_where_the_runtime_tells(manifest: Manifest) -> None:
    original = manifest.original.model_copy(update={"launches": 12})
    found = Result(manifest.model_copy(update={"original": original}), Path("job")).as_json()
    assert found["original"]["launches"] == 12 and "launches" not in found["compressed"]
