"""What a fleet is asked to do, and where each of its workers has to sit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

WorkItem = TypeVar("WorkItem")
WorkResult = TypeVar("WorkResult")

Seat = Literal["gpu", "cpu", "core", "machine"]
"""What a worker needs: a GPU or a CPU that nobody else works on meanwhile, a core, or what a machine has to offer."""


@dataclass(frozen=True)
class Work(Generic[WorkItem, WorkResult]):
    """Something that is measured item by item, wherever: a result depends on nothing but its item and the setting.

    Attributes:
        opened: A function of a module, called on a worker with the setting; it returns what measures items together,
            and raises a ``LayerMergeError`` where that machine cannot.
        setting: What it needs to know; it is pickled, as items and results are.
        seat: Where a worker sits.
        group: Most items that are measured together.
    """

    opened: Callable[[Any], Callable[[Sequence[WorkItem]], Sequence[WorkResult]]]
    setting: Any
    seat: Seat
    group: int
