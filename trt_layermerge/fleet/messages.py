"""What a fleet's driver is told, what workers tell it, and what it tells the command that started it."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.fleet.work import Seat


@dataclass(frozen=True)
class Order:
    """A piece of work, pickled, for the driver knows nothing of it.

    Attributes:
        address: Of the fleet's head; ``None`` for a fleet of this machine alone, which is then started.
        folder: Where that keeps its files.
        workers: How many of them a machine has; ``None`` for what the seat says.
        seat: Where a worker sits.
        group: Most items that one gets at once.
        work: The function that opens the work, and its setting.
        items: One by one.
        seconds: After that nothing is handed out any more; ``None`` for no limit.
    """

    address: str | None
    folder: str
    workers: int | None
    seat: Seat
    group: int
    work: bytes
    items: tuple[bytes, ...]
    seconds: float | None


@dataclass(frozen=True)
class FleetStarted:
    """The fleet is there, and this is where its head answers."""

    address: str


@dataclass(frozen=True)
class Joined:
    """A worker is ready; where, in words."""

    where: str = ""


@dataclass(frozen=True)
class Refused:
    """A machine takes no part, and why; whether for being another device or other code."""

    reason: str
    where: str = ""
    incompatible: bool = True


@dataclass(frozen=True)
class Busy:
    """A worker waits for who is at work on its device, in words."""

    other: str
    where: str = ""


@dataclass(frozen=True)
class Lost:
    """A worker has ended, and so many of its items wait again."""

    where: str
    items: int


@dataclass(frozen=True)
class Fault:
    """What went wrong on a worker: an error's class, message and hint; of a fault of ours its trace."""

    name: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class ItemResults:
    """The results of items that were measured together, pickled; and what their measuring said."""

    results: bytes
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class GivenUp:
    """An item that took worker after worker with it."""

    number: int
    reason: str


@dataclass(frozen=True)
class Deserted:
    """Nobody is left who could go on."""


@dataclass(frozen=True)
class Ended:
    """Nothing is left to be done, or the time is up."""


Message = FleetStarted | Joined | Refused | Busy | Lost | Fault | ItemResults | GivenUp | Deserted | Ended
