"""The time left, told from rows as they were recorded: three runs of the ``fit`` estimator over a ResNet-20.

The constants were chosen by these very runs: this holds them, and what work is counted, where they are.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.importance.estimators.base import EstimationRequest, Samples
from trt_layermerge.importance.estimators.fit import Fit
from trt_layermerge.importance.oneshot import NORM_IMAGES
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.progress import Reporter, Step

RECORDED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "assets" / "resnet20_rows.json").read_text())
EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "model.py"


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(f"{EXAMPLE}:resnet20", None, (1, 28, 28))


def request_of(network: Network, recorded: dict[str, Any], keys: list[str]) -> EstimationRequest:
    known = {choice.key: choice for choice in choices_of(network)}
    samples = Samples(recorded["calibration"], recorded["held_out"])
    return EstimationRequest(network, [known[key] for key in keys], None, samples, recorded["max_kernel"], Path("x"))


def told(seconds: list[float], work: list[float]) -> list[Step]:
    """What a callback is told when rows take so long."""
    now, steps = [0.0], list[Step]()
    reporter = Reporter(steps.append, clock=lambda: now[0])
    reporter.stage("importance")
    for number, (row, done) in enumerate(zip(seconds, accumulate(work), strict=True), start=1):
        now[0] += row
        reporter.progress(number, len(seconds), "", share=done / sum(work))
    return steps[1:]


@pytest.mark.parametrize("which", range(len(RECORDED)))
@pytest.mark.parametrize("resumed", [0, 60])
def test_the_time_left_is_right_within_a_factor_of_two(network: Network, which: int, resumed: int) -> None:
    rows = list(RECORDED[which]["seconds"].items())[resumed:]
    keys, seconds = [key for key, _ in rows], [row for _, row in rows]
    steps = told(seconds, list(Fit().work(request_of(network, RECORDED[which], keys))))
    whole, spent = sum(seconds), list(accumulate(seconds))
    judged = [(step, whole - gone) for step, gone in zip(steps, spent, strict=True) if 0.05 < gone / whole < 0.95]
    assert len(judged) > 50
    for step, left in judged:
        assert step.seconds_left is not None and left / 2 < step.seconds_left < left * 2, (step, left)


def test_a_changed_network_is_run_on_what_corrects_its_norms_too(network: Network) -> None:
    request = request_of(network, RECORDED[0], ["0:3-5 identity", "0:3-7 identity"])
    _, evaluated = Fit().work(replace(request, samples=Samples(0, 1024)))
    for calibration, images in ((128, 128), (512, NORM_IMAGES)):
        _, row = Fit().work(replace(request, samples=Samples(calibration, 1024)))
        assert row == pytest.approx(evaluated * (1024 + images) / 1024)


def test_every_row_has_its_work(network: Network) -> None:
    keys = list(RECORDED[0]["seconds"])
    request = request_of(network, RECORDED[0], keys)
    work = Fit().work(request)
    assert len(work) == request.missing and min(work) >= 0
    of = dict(zip(keys, work, strict=True))
    assert of["0:17-19 identity"] == 0 < of["0:3-7 identity"] < of["0:1-3 identity"], "what lies behind a block is run"
    assert of["0:15-16 fit 1x1 g1"] > 10 * of["0:15-17 fit 1x1 g1"], "the first fit of a start has the equations"
