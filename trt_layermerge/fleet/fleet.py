"""A fleet as a command sees it: work goes in, results come out, as long as its head answers.

Ray itself is in another process (``driver.py``), which is watched from here: results that have come are the caller's,
whatever becomes of it.
"""

from __future__ import annotations

import os
import pickle
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from trt_layermerge import errors
from trt_layermerge.errors import IncompatibleError, LayerMergeError, RuntimeNotAvailableError, UsageError, say
from trt_layermerge.extras import install_hint
from trt_layermerge.fleet.claims import claim_new, remove_left
from trt_layermerge.fleet.messages import (
    Busy,
    Deserted,
    Ended,
    Fault,
    FleetStarted,
    GivenUp,
    ItemResults,
    Lost,
    Message,
    Order,
    Refused,
)
from trt_layermerge.fleet.sessions import end_session
from trt_layermerge.fleet.work import Work, WorkItem, WorkResult

_WATCH, _CONNECT, _ENDING = 1.0, 3.0, 20.0
"""Seconds: between two looks at the head, until it has answered, until the driver has cleaned up."""

_LOG = "driver.log"
_MISSED = 2
"""Looks at a head that does not answer, after which it is lost."""


@dataclass(frozen=True)
class Fleet:
    """Machines that measure together.

    Attributes:
        address: Host and port of the head of a Ray cluster; ``None`` for one of this machine alone.
        workers: How many workers a machine has; ``None`` for one a device, or what else a piece of work says.
    """

    address: str | None
    workers: int | None = None

    @classmethod
    def parse(cls, text: str) -> Fleet:
        """Read ``local``, ``local:2`` or ``host:6379``.

        Raises:
            UsageError: It is none of them.
            RuntimeNotAvailableError: Ray is not installed.
        """
        if find_spec("ray") is None:
            raise RuntimeNotAvailableError(
                "a fleet needs Ray, which is not installed", hint=install_hint("fleet", "ray")
            )
        if found := re.fullmatch(r"local(?::([1-9]\d{0,2}))?", text):
            return cls(None, int(found[1]) if found[1] else None)
        if not re.fullmatch(r"(?!local:)[\w.-]+:[1-9]\d{0,4}", text):
            raise UsageError(
                f"{text!r} is no fleet", hint="pass --fleet local, or host and port of a head: --fleet 10.0.0.7:6379"
            )
        return cls(text)

    def results(
        self,
        work: Work[WorkItem, WorkResult],
        items: Sequence[WorkItem],
        given_up: Callable[[WorkItem, str], WorkResult],
        max_seconds: float | None = None,
    ) -> Iterator[WorkResult]:
        """Measure items on the machines of the fleet; results come in any order, of each item one.

        Args:
            work: How they are measured.
            items: What to measure.
            given_up: The result of an item that took several workers with it, and why; or it raises.
            max_seconds: Time after which no item is handed out any more; ``None`` for no limit.

        Raises:
            RuntimeNotAvailableError: The head is lost, or all machines are.
            IncompatibleError: No machine may take part.
            LayerMergeError: The work itself raised it, on some machine.
        """
        packed = pickle.dumps((work.opened, work.setting))
        each = tuple(map(pickle.dumps, items))
        refused: list[Refused] = []
        with self._driver() as (connection, folder):
            order = Order(self.address, folder, self.workers, work.seat, work.group, packed, each, max_seconds)
            with suppress(OSError):  # a driver that has ended is told of below
                connection.send(order)
            for message in self._messages(connection, Path(folder)):
                if isinstance(message, ItemResults):
                    for caution in message.said:
                        say(caution)
                    yield from pickle.loads(message.results)
                elif isinstance(message, GivenUp):
                    yield given_up(items[message.number], message.reason)
                elif isinstance(message, Fault):
                    raise _error(message)
                elif isinstance(message, Deserted):
                    raise _deserted(refused)
                elif isinstance(message, Refused):
                    refused.append(message)
                    say(f"{message.where} takes no part: {message.reason}")
                else:
                    _tell(message)

    def _messages(self, connection: Connection, folder: Path) -> Iterator[Message]:
        """What the driver tells, until it says that all is done.

        Raises:
            RuntimeNotAvailableError: It does not start, or the head is lost.
        """
        head, missed, looked = None, 0, time.monotonic()
        while True:
            try:
                message = connection.recv() if connection.poll(_WATCH) else None
            except (EOFError, OSError) as error:
                raise self._lost(head) if head else _not_started(folder) from error
            if isinstance(message, Ended):
                return
            if isinstance(message, FleetStarted):
                head = message.address
            elif message is not None:
                yield message
            if head is not None and time.monotonic() - looked >= _WATCH:
                missed, looked = 0 if _answers(head) else missed + 1, time.monotonic()
                if missed >= _MISSED:
                    raise self._lost(head)

    def _lost(self, head: str) -> RuntimeNotAvailableError:
        start = "" if self.address is None else "start it again, and "
        return RuntimeNotAvailableError(
            f"the head of the fleet, {head}, is lost, and no machine can be reached through it",
            hint=f"what was measured is kept; {start}the same command goes on with the rest",
        )

    @contextmanager
    def _driver(self) -> Iterator[tuple[Connection, str]]:
        """A driver, a connection to it, and a folder for Ray's files; all gone after."""
        if self.address is not None and not _answers(self.address):
            raise RuntimeNotAvailableError(
                f"no head of a fleet answers at {self.address}",
                hint="start one: ray start --head --port=6379; join it on this and all other machines: "
                "ray start --address=HOST:6379",
            )
        remove_left()
        here, there = Pipe()
        folder = claim_new()
        log = folder.path / _LOG
        try:
            with open(log, "wb") as messages:
                process = subprocess.Popen(
                    [sys.executable, "-m", "trt_layermerge.fleet.driver", str(there.fileno())],
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=messages,
                    stderr=messages,
                    pass_fds=[there.fileno()],
                    start_new_session=True,
                )
            there.close()
            try:
                yield here, str(folder.path)
            finally:
                here.close()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_ENDING if sys.exc_info()[0] is None else _CONNECT)
                end_session(process.pid)
                process.wait()
                remove_left()
        finally:
            here.close()
            folder.release()

    def _environment(self) -> dict[str, str]:
        """Of the driver, and of what it starts: this very package; and a Ray of our own tells nobody of itself."""
        root = str(Path(__file__).parents[2])
        paths = {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
        own = (
            {}
            if self.address is not None
            else {
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_AUTH_MODE": "token",  # other users of this machine are not to run code as this one
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
            }
        )
        return {**os.environ, **paths, **own}


def _not_started(folder: Path) -> RuntimeNotAvailableError:
    """What the driver wrote last."""
    lines = (folder / _LOG).read_text(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it ended without a word")
    return RuntimeNotAvailableError(f"Ray does not start: {last}", hint="pip install --force-reinstall ray")


def _tell(message: Message) -> None:
    if isinstance(message, Lost):
        waiting = f"; {message.items} rows that it had are measured again" if message.items else ""
        say(f"a worker on {message.where} was lost{waiting}")
    elif isinstance(message, Busy):
        say(f"waiting for {message.other} at work on the device of {message.where}")


def _error(fault: Fault) -> Exception:
    """A fault of a worker as the error that it was."""
    kind = getattr(errors, fault.name, None)
    if not (isinstance(kind, type) and issubclass(kind, LayerMergeError)):
        return RuntimeError(f"on a worker: {fault.message}")
    return kind(fault.message, hint=fault.hint)


def _deserted(refused: Sequence[Refused]) -> LayerMergeError:
    """Why nobody measures: machines are of another kind, or gone."""
    if refused and all(one.incompatible for one in refused):
        return IncompatibleError(
            "no machine of the fleet may take part: they differ from this one",
            hint="run the same release of trt_layermerge and its libraries on all of them, and devices of one kind",
        )
    return RuntimeNotAvailableError(
        "no machine of the fleet can measure: none has the device, or all are lost",
        hint="what was measured is kept; the same command goes on with the rest",
    )


def _answers(address: str) -> bool:
    """Whether something listens there."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
