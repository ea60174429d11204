"""What people see while a job runs, on standard error, and how results are printed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from trt_layermerge.cli.logs import logs_of
from trt_layermerge.progress import Callback, Step, minutes

STAGES = {
    "profile": "measure latencies",
    "baseline": "time the original",
    "importance": "measure importance",
    "solve": "plan",
    "refine": "measure plans",
    "explore": "measure budgets",
    "validate": "measure plans",
    "merge": "merge and fit",
    "fine-tune": "fine-tune",
    "prove": "prove",
    "deliver": "build engines",
    "measure": "time both engines",
    "test": "test both engines",
    "also": "build one more",
}

STDOUT = "trt_layermerge.stdout"

LINE_SECONDS = 60.0
"""A long stage says where it is that often, where nothing is drawn."""


class Bars:
    """A line for each stage on a terminal, with a bar, the time that it took and the time left."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._current: TaskID | None = None

    def __call__(self, step: Step) -> None:
        """Move the bar of the stage; begin one where the stage begins."""
        left = "" if step.finished or step.seconds_left is None else f"about {minutes(step.seconds_left)} left"
        shown: dict[str, Any] = {"label": step.label, "seconds": minutes(step.seconds), "left": left}
        if self._current is None:
            self._current = self._display.add_task(STAGES.get(step.stage, step.stage), total=None, **shown)
        total = step.total or (1 if step.finished else None)
        done = total if step.finished else step.done
        self._display.update(self._current, completed=done, total=total, **shown)
        if step.finished:
            self._current = None


class Lines:
    """A line for each stage that has ended, and one a minute of those that take long: for files and CI."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = clock()

    def __call__(self, step: Step) -> None:
        """Say where the stage is, if it has ended or nothing was said for a minute."""
        now = self._clock()
        if now - self._said < LINE_SECONDS and not (step.finished and (step.total or step.seconds >= 1)):
            return  # a stage of an instant without steps is none to speak of
        self._said = now
        counts = "" if step.total is None else f"{step.done} of {step.total}, "
        left = "" if step.finished or step.seconds_left is None else f", about {minutes(step.seconds_left)} left"
        click.echo(f"{STAGES.get(step.stage, step.stage):<20} {counts}{minutes(step.seconds)}{left}", err=True)


@contextmanager
def screen() -> Iterator[Callback]:
    """What shows progress on standard error: bars on a terminal, lines elsewhere, nothing where that is asked for."""
    logs = logs_of(click.get_current_context())
    if logs is not None and not logs.draws:
        yield lambda step: None  # --quiet wants nothing, and --verbose has a line for each stage
    elif not sys.stderr.isatty():
        yield Lines()
    else:
        columns = (
            TextColumn("{task.description:<20}"),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seconds]:>7}"),
            TextColumn("{task.fields[left]:<20}"),
            TextColumn("{task.fields[label]}", style="dim"),
        )
        with Progress(*columns, console=Console(stderr=True)) as display:
            yield Bars(display)


def keep_output(ctx: click.Context, _param: click.Parameter, wanted: bool) -> bool:
    """Keep standard output for ``print_text``: what else is printed, by the user's files too, goes to the other one."""
    if wanted and STDOUT not in ctx.meta:
        ctx.meta[STDOUT] = ctx.with_resource(_for_us_alone())
    return wanted


@contextmanager
def _for_us_alone() -> Iterator[TextIO]:
    """Standard output as a stream of its own: what C libraries and children write to its descriptor goes elsewhere."""
    shown = sys.stdout
    with redirect_stdout(sys.stderr):
        try:
            shown.flush()
            ours = os.dup(shown.fileno()) if shown.fileno() == 1 and os.fstat(2) else None
        except (OSError, ValueError):  # a stream in memory, or none
            ours = None
        if ours is None:
            yield shown
            return
        os.dup2(2, 1)
        stream = os.fdopen(ours, "w", encoding=shown.encoding, errors=shown.errors)
        try:
            yield stream
        finally:
            os.dup2(ours, 1)
            with suppress(OSError):  # which was told when it was written to
                stream.close()


def print_json(value: Any) -> None:
    """The one JSON value of a command."""
    print_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """The whole output of a command, for other programs."""
    click.echo(text, file=click.get_current_context().meta.get(STDOUT), nl=False)
