"""A job whose engine is not as fast as its plan says, as a user and a CI job meet it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.cli.conftest import Desk, _desk, _run
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.pipeline import compression

ESTIMATED = ("--runtime", "estimate:rtx-2080-ti", "--no-finetune")
"""Latencies that hold to the last digit, unless they are changed here."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A job that went as planned."""
    desk = _desk(tmp_path_factory.mktemp("planned"))
    ran = _run("compress", *desk.job, *ESTIMATED, "--json")
    assert ran.code == 0 and "warnings" not in ran.json and "error" not in ran.err, ran.err
    return desk


@pytest.mark.parametrize(
    ("times", "more", "code", "words"),
    [
        (1.3, (), 8, "slower"),
        (0.7, (), 0, "faster"),
        (1.1, ("--budget", "EXACT"), 8, "slower"),  # the prediction is near, and the budget leaves no room
    ],
)
def test_a_user_and_a_ci_job_learn_of_it(
    job: Desk, monkeypatch: pytest.MonkeyPatch, times: float, more: tuple[str, ...], code: int, words: str
) -> None:
    usual = compression.timed_finally

    def timed(*given: Any) -> Any:
        original, compressed = usual(*given)
        ends = {name: round(times * getattr(compressed, name)) for name in ("ci_low_ns", "median_ns", "ci_high_ns")}
        return PerNetwork(original, replace(compressed, **ends))

    monkeypatch.setattr(compression, "timed_finally", timed)
    out = job.folder / "out"
    planned = json.loads((out / "plan.json").read_text())
    exact = f"{planned['latency_ns'] / 1e6:.9f}ms"
    ran = _run("compress", *job.job, *ESTIMATED, "--json", *(exact if one == "EXACT" else one for one in more))
    result, page = json.loads((out / "result.json").read_text()), (out / "report.html").read_text()
    assert ran.code == code and ran.json == result, ran.err
    assert _run("verify", "--manifest", out / "manifest.json").code == 0, "it is delivered"
    (told,) = result["warnings"]
    measured, predicted = result["compressed"]["latency_ms"], result["predicted_latency_ms"]
    both = f"{words} than planned: {measured:.3f} ms measured, {predicted:.3f} ms predicted"
    assert both in told and both in page and "--refine" in ran.err
    assert (f"error: {told}" in ran.err) is (code == 8)
