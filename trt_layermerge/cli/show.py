"""What people see while a job runs, on standard error, and how results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

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


class Screen:
    """A line for each stage, with a bar and the time left."""

    def __init__(self, progress: Progress) -> None:
        """Draw on a rich progress display."""
        self._display = progress
        self._current: TaskID | None = None

    def stage(self, name: str) -> None:
        """Finish the last stage's line and begin one."""
        self.finish()
        self._current = self._display.add_task(STAGES.get(name, name), total=None, label="")

    def progress(self, done: int, total: int, label: str) -> None:
        """Move the bar of the stage."""
        if self._current is not None:
            self._display.update(self._current, completed=done, total=total, label=label)

    def finish(self) -> None:
        """Fill the bar of the stage."""
        if self._current is None:
            return
        total = self._display.tasks[self._current].total
        self._display.update(self._current, completed=total or 1, total=total or 1, label="")


@contextmanager
def screen() -> Iterator[Screen]:
    """A display on standard error; where that is no terminal, only the finished lines are written."""
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeLeft(),
        TextColumn("{task.fields[label]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        shown = Screen(progress)
        yield shown
        shown.finish()


def keep_output(ctx: click.Context, _param: click.Parameter, wanted: bool) -> bool:
    """Keep standard output for ``print_text``: what else is printed, by the user's files too, goes to the other one."""
    if wanted and STDOUT not in ctx.meta:
        ctx.meta[STDOUT] = sys.stdout
        ctx.with_resource(redirect_stdout(sys.stderr))
    return wanted


def print_json(value: Any) -> None:
    """The one JSON value of a command."""
    print_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """The whole output of a command, for other programs."""
    click.echo(text, file=click.get_current_context().meta.get(STDOUT), nl=False)
