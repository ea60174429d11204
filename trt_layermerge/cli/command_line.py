"""The command line as it was typed: a report says what makes it again. Imports nothing that takes time."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

import click

_KEY = "trt_layermerge.command_line"


def keep_command_line(context: click.Context, arguments: Iterable[str]) -> None:
    """Keep what was typed, for whatever runs within a context."""
    context.meta[_KEY] = shlex.join(["trt-layermerge", *arguments])


def command_line() -> str:
    """What was typed, as a shell takes it; empty where no command line asks."""
    context = click.get_current_context(silent=True)
    return "" if context is None else str(context.meta.get(_KEY, ""))
