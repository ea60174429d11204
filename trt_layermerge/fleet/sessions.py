"""Processes of a session: all that one process has started, and what that has, as far as they have not left it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _parent, _group, its = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def end_session(session: int, spared: int | None = None) -> None:
    """Kill the processes of a session, and those that they start meanwhile."""
    until = time.monotonic() + 5.0
    while left := [number for number in members(session) if number != spared]:
        for number in left:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        if time.monotonic() > until:
            return
        time.sleep(0.02)
