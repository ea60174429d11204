"""Who has which items: each is measured to the end once, whoever is lost meanwhile. Knows nothing of Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from math import ceil

MOST_LOSSES = 3
"""Workers that an item may take with it before it is given up."""


class Ledger:
    """The items of one piece of work, by their numbers: waiting, handed out, or settled."""

    def __init__(self, items: int, group: int) -> None:
        """Nothing is handed out yet.

        Args:
            items: How many there are.
            group: Most that one worker gets at once.
        """
        self._waiting, self._group = list(range(items)), group
        self._out: dict[Hashable, list[int]] = {}
        self._losses: Counter[int] = Counter()

    @property
    def waiting(self) -> int:
        """How many items nobody has."""
        return len(self._waiting)

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is handed out."""
        return not self._waiting and not self._out

    def take(self, worker: Hashable, workers: int) -> list[int]:
        """Hand the first items that wait to a worker that has none.

        Few at the end, so that all workers end together. One that was lost with a worker comes alone, so that an item
        that crashes its worker takes no other with it.
        """
        even = self._group if workers == 1 else ceil(len(self._waiting) / (2 * workers))
        taken = self._waiting[: min(self._group, even)]
        suspects = [number for number in taken if self._losses[number]]
        if suspects:
            taken = suspects[:1]
        if taken:
            self._waiting = [number for number in self._waiting if number not in taken]
            self._out[worker] = taken
        return taken

    def done(self, worker: Hashable) -> None:
        """A worker has measured what it had."""
        del self._out[worker]

    def lost(self, worker: Hashable) -> tuple[list[int], list[int]]:
        """A worker will not come back: its items wait again, at their places.

        Returns:
            The items that wait again, and those that are given up.
        """
        had = self._out.pop(worker, [])
        self._losses.update(had)
        given_up = [number for number in had if self._losses[number] >= MOST_LOSSES]
        again = [number for number in had if number not in given_up]
        self._waiting = sorted([*self._waiting, *again])
        return again, given_up
