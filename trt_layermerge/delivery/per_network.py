"""Pairs of the two networks of a job, so that nobody has to know which of two comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class PerNetwork(Generic[T]):
    """One thing of each network, such as its engine; iterates over them in this order.

    Attributes:
        original: Of the network that a job was given.
        compressed: Of what it made of that.
    """

    original: T
    compressed: T

    def __iter__(self) -> Iterator[T]:
        """The original's, then the compressed network's."""
        return iter((self.original, self.compressed))

    @property
    def named(self) -> dict[str, T]:
        """By the names of the fields, which are those of ``PerNetwork(**named)`` again."""
        return {"original": self.original, "compressed": self.compressed}

    def map(self, function: Callable[[T], U]) -> PerNetwork[U]:
        """The function of each."""
        return PerNetwork(function(self.original), function(self.compressed))
