from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest
from rich.table import Table

from trt_layermerge.report.wide_console import wide_console

PRINTING = """
from rich.table import Table
from trt_layermerge.report.wide_console import wide_console
wide_console(markup=True).print("[red]" + "word " * 40 + "[/]")
"""


def on_a_terminal(**environment: str) -> bytes:
    """What a process prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    told = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {
        "TERM": "xterm",
        "COLUMNS": "80",
    }
    child = subprocess.Popen([sys.executable, "-c", PRINTING], stdout=theirs, env=told | environment)
    os.close(theirs)
    found = b""
    try:
        while part := os.read(ours, 4096):
            found += part
    except OSError:  # the terminal has gone
        pass
    child.wait()
    os.close(ours)
    return found


def test_a_table_in_a_file_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", written := io.StringIO())
    table = Table("name", "value", title="title")
    table.add_row("layer." * 40, "x" * 60)
    wide_console().print(table)
    assert "layer." * 40 in written.getvalue() and "x" * 60 in written.getvalue()
    assert max(map(len, written.getvalue().splitlines())) < 400, "and it is not padded to any width either"


def test_a_terminal_has_lines_of_its_width_and_colours_unless_nobody_wants_them() -> None:
    plain, coloured = on_a_terminal(NO_COLOR="1"), on_a_terminal()
    assert plain.count(b"\n") > 1 and coloured.count(b"\n") > 1
    assert b"\x1b[31m" in coloured and b"\x1b[31m" not in plain


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_reader_that_has_gone_is_left_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        wide_console().print("a table")
