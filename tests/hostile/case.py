"""A hostile input: files that are written to a folder, and the command that is given them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"


class Right(Enum):
    """What is right to come of it: always in one message, or in a whole result."""

    REFUSED = "refused"
    EITHER = "refused, or a result"
    SAME = "the result of the same command without what is hostile"


@dataclass(frozen=True)
class Hostile:
    """A hostile input.

    Attributes:
        name: Its kind, then what is particular.
        command: Writes its files to a folder; the arguments of the command.
        right: What is right.
        without: The same command without what is hostile, where its result is right.
    """

    name: str
    command: Callable[[Path], list[object]]
    right: Right = Right.REFUSED
    without: Callable[[Path], list[object]] | None = None


_OPTIONS = "--runtime estimate:rtx-2080-ti --max-layers 2 --max-kernel 5 --calibration 64 --held-out 64 --cpu-threads 1"


def job(folder: Path, *more: object) -> list[object]:
    """A whole job, of the files in a folder, or where it has none of the usual ones."""
    model, task = (folder / name if (folder / name).exists() else ASSETS / name for name in ("model.py", "task.py"))
    return [
        *("compress", model, "--task", task, *_OPTIONS.split(), "--output", folder / "out"),
        *("--profiles", folder / "profiles", "--fit-samples", 64, "--epochs", 1, "--budget", 0.9, "--json", *more),
    ]
