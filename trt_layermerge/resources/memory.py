"""How much memory measuring and fitting may take, and what of it each large consumer gets.

What does not fit is computed again instead of being kept, or comes in several parts: what comes out is the same under
any limit. This is the one place that divides memory; whoever takes much of it is handed its ``Room``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from trt_layermerge.errors import UsageError
from trt_layermerge.resources.cgroups import control_groups, text_of
from trt_layermerge.resources.heap import give_back

USUAL_SHARE = 0.75
"""Of what is free on the machine, or in its control group, that is taken where no limit is told."""

MOST_EQUATIONS, MOST_ACTIVATIONS = 3 << 30, 2 << 30
"""More is of no use to most networks."""

RESERVE = 256 << 20
"""What interpreter, libraries and small tensors take beside what is planned for."""

LEAST = 256 << 20
"""Bytes that are less than any network takes."""

_NEAR = 0.8
"""Share of the limit from which on freed memory goes back to the system."""


@dataclass(frozen=True)
class Need:
    """Bytes without which a network cannot be measured at all.

    Attributes:
        equations: Of the largest system of equations, with its factors.
        passes: Of one forward pass of the largest batch.
    """

    equations: int = 0
    passes: int = 0


@dataclass(frozen=True)
class Room:
    """Bytes that may be held at once.

    Attributes:
        equations: For normal equations, those that are prepared for what comes next among them.
        activations: For activations that are kept between choices.
        passes: For activations of forward passes, of all that run at a time.
    """

    equations: int
    activations: int
    passes: int

    def beside(self, equations: int) -> int:
        """Bytes for activations while equations take so many: what these leave of their own room, too."""
        return min(MOST_ACTIVATIONS, self.activations + max(0, self.equations - equations))


@dataclass(frozen=True)
class MemoryLimit:
    """The most memory that this process is to take.

    Attributes:
        bytes: As the system counts what is resident.
    """

    bytes: int

    @classmethod
    def parse(cls, text: str | int) -> MemoryLimit:
        """A limit as people write it: ``4GiB``, ``4G`` for the same, ``500MB`` of 1000 bytes a kB; a number is bytes.

        Raises:
            UsageError: It is no size, or less than an empty program takes.
        """
        found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([kmgt]?)(i?b?)", str(text).strip().lower(), re.ASCII)
        if found is None:
            raise UsageError(f"{text!r} is no size of memory", hint="write 4GiB or 500MB")
        number, letter, unit = found.groups()
        size = int(Fraction(number) * (1000 if unit == "b" else 1024) ** " kmgt".index(letter or " "))
        if size < LEAST:
            raise UsageError(
                f"a memory limit of {text} is less than Python and torch take", hint=f"begin at {LEAST >> 20}MiB"
            )
        return cls(size)

    @classmethod
    def usual(cls) -> MemoryLimit:
        """A share of what is free, beside what this process has taken already."""
        return cls(resident() + int(USUAL_SHARE * free_memory()))

    def room(self, need: Need) -> Room:
        """What is left of the limit now, divided: first what is needed, then half of the rest for equations.

        Activations that are not kept are computed again for every choice, and get more than passes do.
        """
        rest = max(0, self.bytes - resident() - RESERVE - need.equations - need.passes)
        return Room(
            max(need.equations, min(MOST_EQUATIONS, need.equations + rest // 2)),
            min(MOST_ACTIVATIONS, rest * 3 // 8),
            need.passes + rest // 8,
        )

    def keep(self) -> None:
        """Give freed memory back, if the limit is near: of what the C library holds, parts may be too small for use."""
        if resident() > _NEAR * self.bytes:
            give_back()

    def __str__(self) -> str:
        return f"{self.bytes / (1 << 30):.1f} GiB"


def least_limit(need: Need, data: int) -> MemoryLimit:
    """The least that can be held, from what the process takes now, what it needs, and the data that it will read."""
    return MemoryLimit(resident() + RESERVE + data + need.equations + need.passes)


def resident() -> int:
    """Bytes of this process that are in memory; 0 where the system does not tell."""
    pages = text_of(Path("/proc/self/statm")).split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else 0


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: of the machine's, and of what its control groups grant.

    Args:
        root: Where ``sys`` and ``proc`` are.
    """
    return max(0, min(_free(root), default=MOST_EQUATIONS + MOST_ACTIVATIONS))


def _free(root: Path) -> Iterator[int]:
    for line in text_of(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10
    for place in control_groups("memory", root):
        for most, now in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            granted, taken = text_of(place / most), text_of(place / now)
            if granted.isdecimal() and taken.isdecimal():
                yield int(granted) - int(taken) + _cached(place)


def _cached(place: Path) -> int:
    """Bytes of files that a group keeps in memory for as long as nobody needs it."""
    lines = (line.split() for line in text_of(place / "memory.stat").splitlines())
    found = {name: int(value) for name, value in lines}
    return found.get("total_inactive_file", found.get("inactive_file", 0))
