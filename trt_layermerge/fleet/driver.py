"""Hands work out through Ray: ``python -m trt_layermerge.fleet.driver HANDLE``, started by ``fleet.py``.

It is a process of its own, and leader of a session of its own, for two reasons. Ray ends the process that uses it,
without a word, a minute after a fleet's head is lost. And what Ray starts for a fleet of this machine alone is of this
session, so that nothing of it outlives the command. This file alone imports Ray.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trt_layermerge.fleet.claims import remove_left
from trt_layermerge.fleet.ledger import MOST_LOSSES, Ledger
from trt_layermerge.fleet.messages import (
    Busy,
    Deserted,
    Ended,
    Fault,
    FleetStarted,
    GivenUp,
    ItemResults,
    Joined,
    Lost,
    Order,
    Refused,
)
from trt_layermerge.fleet.sessions import end_session
from trt_layermerge.fleet.worker import Worker, source_identity

_STEP, _NODES_EVERY, _BUSY_RETRY, _LEAVE_SECONDS, _PATIENCE = 0.5, 3.0, 2.0, 5.0, 30.0
_LOSSES, _LAST_LOSSES = 2, 2 * MOST_LOSSES
"""Workers that a place may lose in a row, without a result: one of several, and the last one."""

_OBJECT_STORE = 80 << 20
"""Bytes; what is handed out is small."""


@dataclass(eq=False)
class _Place:
    """A place for one worker at a time."""

    node: str
    where: str
    resources: dict[str, float]
    actor: Any = None
    joined: bool = False
    losses: int = 0
    asked_at: float = 0.0
    again_at: float | None = None


class Driver:
    """One piece of work while it is done."""

    def __init__(self, connection: Connection, order: Order) -> None:
        self._connection, self._order, self._began = connection, order, time.monotonic()
        self._ledger, self._identity = Ledger(len(order.items), order.group), source_identity()
        self._places: list[_Place] = []
        self._calls: dict[Any, tuple[_Place, str]] = {}
        self._known: set[str] = set()
        self._swept: set[str] = set()
        self._suspects: list[_Place] = []

    def run(self) -> None:
        """Until all is done, nobody is left who could do it, or nobody wants it any more."""
        looked = -_NODES_EVERY
        while not self._ended():
            if time.monotonic() - looked >= _NODES_EVERY:
                self._look_for_machines()
                looked = time.monotonic()
            self._open_places()
            self._hear()
        self._tell(Ended())

    def dismiss(self) -> None:
        """Let all workers clean up, and clean up behind those that were lost."""
        leaving = [place.actor.leave.remote() for place in self._places if place.joined]
        sweep = ray.remote(num_cpus=0)(remove_left)
        leaving += [sweep.options(scheduling_strategy=_on(node)).remote() for node in self._swept]
        with suppress(RayError):
            ray.wait(leaving, num_returns=max(len(leaving), 1), timeout=_LEAVE_SECONDS) if leaving else None

    def _ended(self) -> bool:
        if self._connection.poll(0):  # nothing more is ever told: the command has gone
            return True
        if self._ledger.settled or (self._late and not any(what == "measure" for _, what in self._calls.values())):
            return True
        if self._known and not self._places:
            self._tell(Deserted())
            return True
        return False

    @property
    def _late(self) -> bool:
        return self._order.seconds is not None and time.monotonic() - self._began >= self._order.seconds

    def _look_for_machines(self) -> None:
        """Find places on machines that have come, whenever they come."""
        nodes = _alive()
        for node in nodes:
            if node["NodeID"] not in self._known:
                self._known.add(node["NodeID"])
                self._places += _places(node, self._order)
        alive = {node["NodeID"] for node in nodes}
        self._places = [place for place in self._places if place.node in alive or place.actor is not None]

    def _open_places(self) -> None:
        now = time.monotonic()
        for place in self._places:
            if place.actor is None:
                options = {"num_cpus": place.resources["CPU"], "num_gpus": place.resources.get("GPU", 0)}
                actor = ray.remote(Worker).options(**options, max_restarts=0, scheduling_strategy=_on(place.node))
                place.actor, place.asked_at = actor.remote(), now
                self._call(place, "identity")
            elif place.again_at is not None and now >= place.again_at:
                place.again_at = None
                self._call(place, "join", self._order.work, self._order.seat)
        asked = {place: what for place, what in self._calls.values()}
        for place in self._places:
            if place.joined and place not in asked:
                self._hand_out(place)
            elif asked.get(place) == "identity" and place.asked_at < now - _PATIENCE:
                place.asked_at = math.inf  # said once
                self._tell(Busy("other jobs of the Ray cluster", place.where))

    def _hand_out(self, place: _Place) -> None:
        if self._late:
            return
        joined = sum(one.joined for one in self._places)
        if numbers := self._ledger.take(place, joined):
            self._call(place, "measure", [self._order.items[number] for number in numbers])

    def _call(self, place: _Place, method: str, *given: Any) -> None:
        self._calls[getattr(place.actor, method).remote(*given)] = (place, method)

    def _hear(self) -> None:
        """Wait for the next answers, and act on them."""
        if not self._calls:
            time.sleep(_STEP)
            return
        ready, _ = ray.wait(list(self._calls), num_returns=1, timeout=_STEP)
        for call in ready:
            place, method = self._calls.pop(call)
            try:
                answer = ray.get(call)
            except RayError as error:
                self._failed(place, method, error)
            else:
                self._answered(place, answer)

    def _failed(self, place: _Place, method: str, error: RayError) -> None:
        """A worker is lost; or what it should run there is not what runs here, and cannot even be asked."""
        if method == "identity" and (isinstance(error, RayTaskError) or getattr(error, "actor_init_failed", False)):
            last = str(error).strip().splitlines()[-1]
            self._refuse(place, Refused(f"trt_layermerge cannot be used there: {last}"))
            return
        if isinstance(error, RayTaskError):
            self._tell(Fault("", str(error)))
            return
        place.actor, place.joined, place.losses = None, False, place.losses + 1
        self._swept.add(place.node)
        again, given_up = self._ledger.lost(place)
        self._tell(Lost(place.where, len(again)))
        others = any(one.joined for one in self._places if one is not place)
        if place.node not in {node["NodeID"] for node in _alive()}:
            self._places.remove(place)
        elif place.losses >= (_LOSSES if others else _LAST_LOSSES):
            self._places.remove(place)
            self._suspects.append(place)
        for number in given_up:  # so it was not the places
            self._tell(GivenUp(number, f"{MOST_LOSSES} workers were lost, one after the other, while they measured it"))
            self._places += [replace(one, losses=0) for one in self._suspects]
            self._suspects.clear()

    def _answered(self, place: _Place, answer: Any) -> None:
        if isinstance(answer, dict):
            self._identified(place, answer)
        elif isinstance(answer, Refused):
            self._refuse(place, answer)
        elif isinstance(answer, Busy):
            place.again_at = time.monotonic() + _BUSY_RETRY
            self._tell(replace(answer, where=place.where))
        elif isinstance(answer, Joined):
            place.joined = True
            self._tell(Joined(place.where))
        elif isinstance(answer, ItemResults):
            place.losses = 0
            self._ledger.done(place)
            self._tell(answer)
        else:
            self._tell(answer)

    def _identified(self, place: _Place, there: dict[str, str]) -> None:
        """See that what runs there is what runs here."""
        names = [name for name in {**self._identity, **there} if self._identity.get(name) != there.get(name)]
        if names:
            told = (f"{name}: {there.get(name, 'none')}, here {self._identity.get(name, 'none')}" for name in names)
            self._refuse(place, Refused("; ".join(told)))
        else:
            self._call(place, "join", self._order.work, self._order.seat)

    def _refuse(self, place: _Place, refused: Refused) -> None:
        self._places.remove(place)
        ray.kill(place.actor)
        self._tell(replace(refused, where=place.where))

    def _tell(self, message: object) -> None:
        with suppress(OSError):  # the command has gone, which the next step sees
            self._connection.send(message)


def _places(node: dict[str, Any], order: Order) -> Iterator[_Place]:
    """The places of a machine: one for each of its devices; for what is no device, one for each core or one."""
    cpus, gpus = node["Resources"].get("CPU", 0.0), int(node["Resources"].get("GPU", 0.0))
    devices = {"gpu": gpus, "cpu": int(cpus > 0), "core": int(cpus), "machine": int(cpus > 0) and max(gpus, 1)}
    count = devices[order.seat]
    if order.workers is not None:
        count = min(order.workers, count) if order.seat in ("gpu", "cpu") else order.workers
    for _ in range(count):
        share = cpus / count
        resources = {"CPU": float(int(share)) if share >= 1 else share}
        if gpus and order.seat in ("gpu", "machine"):
            resources["GPU"] = 1.0 if count <= gpus else gpus / count
        yield _Place(node["NodeID"], f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})", resources)


def _alive() -> list[dict[str, Any]]:
    """The machines that Ray believes to be there."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call, unused-ignore]


def _on(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _connect(order: Order) -> str:
    """Start Ray on this machine, reachable from it alone; or connect to what is there. Where its head answers."""
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if order.address is not None:
        ray.init(order.address, **quiet)
        return order.address
    quiet |= {"_temp_dir": order.folder, "_node_ip_address": "127.0.0.1", "include_dashboard": False}
    context: Any = ray.init("local", num_cpus=_cores(), object_store_memory=_OBJECT_STORE, **quiet)
    return str(context.address_info["gcs_address"])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: Sequence[str]) -> None:
    """Do what the command sends, and tell it over the connection that it has opened."""
    connection = Connection(int(arguments[0]))
    order: Order = connection.recv()
    try:
        connection.send(FleetStarted(_connect(order)))
    except Exception as error:  # of Ray's many kinds
        connection.send(Fault("RuntimeNotAvailableError", f"Ray does not start: {error}"))
        return
    driver = Driver(connection, order)
    try:
        driver.run()
    finally:
        driver.dismiss()
        ray.shutdown() if order.address is not None else end_session(os.getsid(0), spared=os.getpid())


if __name__ == "__main__":
    main(sys.argv[1:])
