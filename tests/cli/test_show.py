from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click
import pytest

from trt_layermerge.cli.show import LINE_SECONDS, Lines, keep_output, print_json
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


def test_standard_output_is_ours_alone_whatever_writes_to_its_descriptor(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", os.fdopen(1, "w", closefd=False))
    with click.Context(click.Command("it")) as context:
        keep_output(context, click.Option(["--json"]), True)
        print("from Python")
        os.write(1, b"from C\n")
        subprocess.run(["echo", "from a child"], check=True)
        print_json([1])
    print("behind it", flush=True)
    out, err = capfd.readouterr()
    assert out == "[\n  1\n]\nbehind it\n"
    assert {"from C", "from a child"} <= set(err.splitlines())


def test_no_bar_is_drawn_into_a_file(run: Any, desk: Any) -> None:
    err = run("profile", *desk.stage).err
    assert err.startswith("measure latencies") and "\x1b" not in err and "━" not in err
