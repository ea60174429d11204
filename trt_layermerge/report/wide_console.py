"""Where tables for people are printed. Where that is no terminal they are as wide as they need to be, not cut at 80."""

from __future__ import annotations

import sys

from rich.console import Console

UNCUT = 10_000
"""Columns of what is no terminal; tables take what they need of them."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends in silence, what rich ends the process for."""
        raise  # the BrokenPipeError, which rich has caught where it calls this


def wide_console(*, stderr: bool = False, markup: bool = False) -> Console:
    """A console on standard output, or on the other one. Names are the model's and the user's, and no markup.

    Colours are left out where ``NO_COLOR`` is set, or the terminal has none.
    """
    stream = sys.stderr if stderr else sys.stdout
    return _Console(stderr=stderr, markup=markup, emoji=False, width=None if stream.isatty() else UNCUT)
