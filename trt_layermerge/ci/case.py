"""A result as CI is told of it: a title, notes, and a case for each row; what writes files knows nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "skipped"]

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Measure:
    """A number that a chart can be drawn of; smaller is better.

    Attributes:
        value: The number.
        unit: Of it, such as ``ms``.
        spread: How far its interval reaches to the wider side.
    """

    value: float
    unit: str
    spread: float


@dataclass(frozen=True)
class CiCase:
    """A row of a result.

    Attributes:
        name: What it is of, such as an operation.
        outcome: ``failed`` only where the command fails for it; ``skipped`` where nothing can be said of it.
        verdict: The same in the command's own word.
        reason: Why it did not pass, in words; ``None`` where there is nothing to say.
        figures: Its cells of the table, in the order of the report's columns.
        measure: What it measured, if anything.
    """

    name: str
    outcome: Outcome
    verdict: str
    reason: str | None
    figures: tuple[str, ...]
    measure: Measure | None


@dataclass(frozen=True)
class CiReport:
    """A result.

    Attributes:
        suite: Name of its kind and device, in short.
        title: What came out, in one line.
        notes: What else is to be known.
        columns: Names of the figures of each case.
        cases: The rows, those first that matter most.
    """

    suite: str
    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    cases: tuple[CiCase, ...]

    def count(self, outcome: Outcome) -> int:
        """How many cases ended like that."""
        return sum(case.outcome == outcome for case in self.cases)


def printable(text: str) -> str:
    r"""A text without what no file can hold or no reader should be sent: control characters and halves of pairs.

    They are written as Python would, such as ``\x1b``; XML 1.0 has no way to hold them at all.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
