from __future__ import annotations

from typing import Any

import pytest

from trt_layermerge.cli.show import LINE_SECONDS, Lines
from trt_layermerge.progress import Step, minutes


def test_where_nothing_is_drawn_a_stage_is_a_line_when_it_ends_and_one_a_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    lines = Lines(clock=lambda: now[0])
    lines(Step("importance"))
    for done in range(1, 101):
        now[0] += LINE_SECONDS / 40
        lines(Step("importance", done, 100, "row", now[0], seconds_left=7200.0))
    lines(Step("importance", 100, 100, "", now[0], 0.0, finished=True))
    lines(Step("solve", seconds=0.01, finished=True))
    lines(Step("prove", seconds=2.0, finished=True))
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "measure importance   40 of 100, 60 s, about 2.0 h left",
        "measure importance   80 of 100, 2 min, about 2.0 h left",
        "measure importance   100 of 100, 2 min",
        "prove                2 s",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (89, "89 s"), (120, "2 min"), (7200, "2.0 h")])
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert minutes(seconds) == text


def test_no_bar_is_drawn_into_a_file(run: Any, desk: Any) -> None:
    err = run("profile", *desk.stage).err
    assert err.startswith("measure latencies") and "\x1b" not in err and "━" not in err
