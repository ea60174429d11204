"""What control groups grant this process: its own, and all above it, in either version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """The folders of the groups that a controller limits this process by, its own group first.

    Args:
        controller: Such as ``cpu`` or ``memory``.
        root: Where ``sys`` and ``proc`` are.
    """
    for line in text_of(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        folder = root / "sys/fs/cgroup"
        if number != "0" and controller in controllers.split(","):
            folder /= controllers
        elif number != "0":
            continue
        own = folder / path.strip("/")
        for place in (own, *own.parents):
            yield place
            if place == folder:
                break


def text_of(path: Path) -> str:
    """A file's text; nothing of what is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
