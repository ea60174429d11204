from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.progress import Reporter, Step, reporting


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reporter_of() -> tuple[Reporter, list[Step], Clock]:
    steps, clock = list[Step](), Clock()
    return Reporter(steps.append, clock), steps, clock


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.01, 1e4))
def test_even_steps_tell_the_time_left_exactly_wherever_a_run_goes_on(before: int, more: int, pace: float) -> None:
    reporter, steps, clock = reporter_of()
    reporter.stage("fine-tune")
    clock.now += 17.0  # loading
    reporter.progress(before, before + more, "")
    for done in range(before + 1, before + more + 1):
        clock.now += pace
        reporter.progress(done, before + more, "")
        assert steps[-1].seconds_left == pytest.approx((before + more - done) * pace, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(0.1, 100), min_size=2, max_size=30))
def test_known_work_tells_it_exactly_however_uneven(work: list[float]) -> None:
    reporter, steps, clock = reporter_of()
    reporter.stage("importance")
    for number in range(len(work)):
        clock.now += 3 * work[number]
        reporter.progress(40 + number, 40 + len(work), "", share=sum(work[: number + 1]) / sum(work))
        assert steps[-1].seconds_left == pytest.approx(3 * sum(work[number + 1 :]), rel=1e-6, abs=1e-3)


def test_a_part_of_a_stage_with_other_steps_has_a_time_of_its_own() -> None:
    reporter, steps, clock = reporter_of()
    reporter.stage("importance")
    reporter.progress(0, 1000, "training of gates")
    clock.now += 500
    reporter.progress(1000, 1000, "training of gates")
    clock.now += 1
    reporter.progress(1, 11, "row", share=0.1)
    assert steps[-1].seconds_left == pytest.approx(9)


def test_every_stage_begins_and_ends_once_for_callback_and_log(caplog: pytest.LogCaptureFixture) -> None:
    steps: list[Step] = []
    with caplog.at_level(logging.DEBUG, logger="trt_layermerge"), reporting(steps.append) as reporter:
        reporter.progress(1, 2, "before any stage")
        for name in ("profile", "solve"):
            reporter.stage(name)
        reporter.progress(1, 2, "half")
    assert [(step.stage, step.finished) for step in steps] == [
        ("profile", False),
        ("profile", True),
        ("solve", False),
        ("solve", False),
        ("solve", True),
    ]
    events = [(record.__dict__["event"], record.__dict__["fields"]["stage"]) for record in caplog.records]
    assert events == [
        ("stage", "profile"),
        ("stage-end", "profile"),
        ("stage", "solve"),
        ("step", "solve"),
        ("stage-end", "solve"),
    ]


def test_a_stage_that_fails_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, logger="trt_layermerge"),
        pytest.raises(KeyboardInterrupt),
        reporting(None) as reporter,
    ):
        reporter.stage("importance")
        reporter.progress(3, 8, "0:1-2 identity")
        raise KeyboardInterrupt
    last = caplog.records[-1].__dict__
    assert (last["event"], last["fields"]["done"], last["fields"]["error"]) == ("stage-stopped", 3, "KeyboardInterrupt")
