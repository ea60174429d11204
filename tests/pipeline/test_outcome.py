from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.errors import Caution, ExitCode, RegressionError
from trt_layermerge.pipeline import outcome
from trt_layermerge.pipeline.compression import whole_job
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.outcome import Promise, allowed_loss, better_of, promised, require_as_planned
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.training.evaluate import Score


@given(st.floats(-100, 100), st.floats(0, 100), st.booleans())
def test_what_is_as_good_as_predicted_is_delivered(original: float, cost: float, classification: bool) -> None:
    most = allowed_loss(original, original + cost, classification * 0.5)
    assert most >= original + cost
    assert most <= allowed_loss(original, original + cost + 1, classification * 0.5)


def test_in_classification_losses_are_in_nats() -> None:
    assert allowed_loss(0.01, 0.02, 0.5) == pytest.approx(0.53)
    assert allowed_loss(0.01, 0.02, 0.0) == pytest.approx(0.04)


@pytest.mark.parametrize("loss", [9.0, float("nan")])
def test_a_network_that_is_far_worse_is_delivered_only_where_that_is_accepted(
    done: Job, recorder: Any, monkeypatch: pytest.MonkeyPatch, loss: float
) -> None:
    session = open_session(done)
    (done.output / "manifest.json").unlink()
    original = session.network.module
    score = Score(0.1, 0.9, 64), Score(loss, 0.5, 64)
    monkeypatch.setattr(outcome, "held_out_score", lambda _, module: score[module is not original])
    words = f"far worse than planned: its held-out loss is {loss:.4g}; the plan predicts .*, the original has 0.1,"
    with pytest.raises(RegressionError, match=words) as caught:
        whole_job(session, recorder)
    assert caught.value.exit_code == ExitCode.REGRESSION == 7 and "--accept-worse" in str(caught.value)
    assert "deliver" not in recorder.stages and not (done.output / "manifest.json").exists()
    with pytest.warns(Caution, match="far worse than planned"):
        result = whole_job(replace(session, job=replace(done, accept_worse=True)), recorder)
    (warning,) = result.as_json()["warnings"]
    assert "far worse than planned" in warning and (done.output / "manifest.json").exists()


def test_a_network_that_turned_into_noise_is_far_worse(done: Job) -> None:
    session, other = open_session(done), open_session(done).network.module
    promise = promised(session, read_plan(done.plan_file).plan)
    assert require_as_planned(session, promise, session.network.module) == ()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-5)
    with pytest.raises(RegressionError, match="far worse than planned"):
        require_as_planned(session, promise, other)


NAN = float("nan")


@pytest.mark.parametrize(
    ("before", "after", "used"),
    [
        ((0.5, 0.8), (0.4, 0.8), True),
        ((0.5, 0.8), (0.4, 0.7), True),
        ((0.5, 0.8), (0.9, 0.9), True),  # surer of itself, and right more often
        ((0.5, 0.8), (0.6, 0.8), False),
        ((0.5, 0.8), (1.1, 0.9), False),  # beyond what is delivered
        ((1.1, 0.8), (1.2, 0.9), True),  # so were both
        ((1.1, 0.8), (1.2, 0.8), False),
        ((0.5, 0.8), (NAN, 0.1), False),
        ((0.5, 0.8), (NAN, 0.9), False),
    ],
)
def test_training_that_makes_a_network_worse_is_not_used(
    done: Job, monkeypatch: pytest.MonkeyPatch, before: tuple[float, float], after: tuple[float, float], used: bool
) -> None:
    trained, untrained = torch.fx.symbolic_trace(torch.nn.ReLU()), torch.fx.symbolic_trace(torch.nn.ReLU())
    scores = {trained: Score(*after, 64), untrained: Score(*before, 64)}
    monkeypatch.setattr(outcome, "held_out_score", lambda _, module: scores[module])
    session = open_session(done)
    with nullcontext() if used else pytest.warns(Caution, match="led away from the original and is not used"):
        better, said = better_of(session, Promise(0.1, 0.2, 1.0), trained, untrained)
    assert better is (trained if used else untrained) and bool(said) != used
    assert better_of(session, Promise(0.1, 0.2, 1.0), trained, None) == (trained, ())
