"""Pairs of the two networks of a job, so that nobody has to know which of two comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")
U = TypeVar("U")


@dataclass(frozen=True)
class PerNetwork(Generic[_T]):
    """One thing of each network, such as its engine; iterates over them in this order.

    Attributes:
        original: Of the network that a job was given.
        compressed: Of what it made of that.
    """

    original: _T
    compressed: _T

    def __iter__(self) -> Iterator[_T]:
        """The original's, then the compressed network's."""
        return iter((self.original, self.compressed))

    @property
    def named(self) -> dict[str, _T]:
        """By the names of the fields, which are those of ``PerNetwork(**named)`` again."""
        return {"original": self.original, "compressed": self.compressed}

    def map(self, function: Callable[[_T], U]) -> PerNetwork[U]:
        """The function of each."""
        return PerNetwork(function(self.original), function(self.compressed))
