"""Rows that a fleet measures, of latencies and of importance: what is sent, and what a worker makes of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.gap_signature import AnySignature, GapSignature
from trt_layermerge.blocks.sized_choices import NarrowedGroup
from trt_layermerge.errors import IncompatibleError, InputError, RuntimeNotAvailableError
from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.fleet.work import Seat, Work
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.filling import rows_here, table_key
from trt_layermerge.importance.table import ImportanceRow, TableKey
from trt_layermerge.journal import differences
from trt_layermerge.latency.measure import DeviceRunner
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import ProfileKey, ProfileRow
from trt_layermerge.network.device import placed
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import open_network
from trt_layermerge.progress import silent
from trt_layermerge.resources.heap import heap_kept
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime, require_running

IMPORTANCE_GROUP = 16
"""Choices that a worker gets at once: neighbours share their normal equations."""

LATENCY_GROUP = 8
"""Most operations that a worker gets at once, fewer than a device alone takes: all workers are to have some."""

LatencyItem = tuple[AnySignature, bytes | None]
"""An operation; a gap with its ONNX model, for which a worker has no network."""


@dataclass(frozen=True)
class LatencySetting:
    """What a worker needs to measure latencies, and which device it has to have."""

    runtime: str
    options: BuildOptions
    policy: MeasurementPolicy
    key: ProfileKey
    rebuilt: frozenset[str] = frozenset()


def open_latencies(setting: LatencySetting) -> Callable[[Sequence[LatencyItem]], list[ProfileRow]]:
    """Measure latencies here; a ``Work``'s function.

    Raises:
        RuntimeNotAvailableError: The runtime does not run here.
        IncompatibleError: This is another device than the profile's.
    """
    require_running(setting.runtime)
    models: dict[str, bytes] = {}
    runner = DeviceRunner(
        get_runtime(setting.runtime),
        setting.options,
        setting.policy,
        lambda gap: onnx.load_model_from_string(models[gap.key]),
        setting.rebuilt,
    )
    if differing := runner.key.differences(setting.key):
        raise IncompatibleError("; ".join(differing))

    def measured(items: Sequence[LatencyItem]) -> list[ProfileRow]:
        models.update((signature.key, model) for signature, model in items if model is not None)
        return list(runner.rows([signature for signature, _ in items]))

    return measured


@dataclass(frozen=True)
class FleetRunner:
    """Measures latencies on a fleet; see ``latency.runner.Runner``.

    Attributes:
        fleet: The machines.
        here: Who would measure here: the device that all of them have to have, and the writer of gaps.
    """

    fleet: Fleet
    here: DeviceRunner

    @property
    def key(self) -> ProfileKey:
        """What its rows are of: the device that is here."""
        return self.here.key

    @property
    def policy(self) -> MeasurementPolicy:
        """How sure its latencies are."""
        return self.here.policy

    def rows(self, signatures: Sequence[AnySignature], max_seconds: float | None = None) -> Iterator[ProfileRow]:
        """Measure on all devices of the fleet that are like the one here."""
        until = None if max_seconds is None else time.monotonic() + max_seconds
        items: list[LatencyItem] = []
        for signature in signatures:
            try:  # before anything is measured, for this machine may measure, too
                gap = self.here.gap_model(signature) if isinstance(signature, GapSignature) else None
                items.append((signature, None if gap is None else gap.SerializeToString()))
            except InputError as error:
                yield ProfileRow(signature, None, "failed", error.message)
        left = None if until is None else until - time.monotonic()
        if items and (left is None or left > 0):
            here = self.here
            setting = LatencySetting(here.runtime.name, here.options, here.policy, here.key, here.rebuilt)
            work = Work(open_latencies, setting, _seat(self.key), min(self.policy.group, LATENCY_GROUP))
            yield from self.fleet.results(work, items, _failed, left)


def _seat(key: ProfileKey) -> Seat:
    """Where engines are timed; where nothing is timed, as many estimate as there are cores."""
    if key.device.simulated:
        return "core"
    return "cpu" if key.device.driver is None else "gpu"


def _failed(item: LatencyItem, reason: str) -> ProfileRow:
    return ProfileRow(item[0], None, "failed", reason)


@dataclass(frozen=True)
class ImportanceSetting:
    """What a worker needs to measure importance.

    Attributes:
        job: The job, whose files it reads at the same paths.
        folder: The folder that these are relative to.
        key: What of the network, the data and the estimator has to be the same there.
    """

    job: Job
    folder: Path
    key: TableKey


def open_importance(
    setting: ImportanceSetting,
) -> Callable[[Sequence[Choice | NarrowedGroup]], list[ImportanceRow]]:
    """Measure importance here; a ``Work``'s function.

    Raises:
        IncompatibleError: The files here are other ones.
        LayerMergeError: They cannot be used.
    """
    try:
        os.chdir(setting.folder)
    except OSError as error:
        raise InputError(f"{setting.folder} is not there: {error.strerror}") from error
    job = setting.job
    network, task, device = open_network(job)
    assert task is not None
    if differing := differences(asdict(table_key(network, task, job.estimation)), asdict(setting.key)):
        raise IncompatibleError("; ".join(differing))
    network.module.eval()

    def measured(items: Sequence[Choice | NarrowedGroup]) -> list[ImportanceRow]:
        choices = sorted((one for one in items if isinstance(one, Choice)), key=lambda one: one.block)
        widths = tuple(one for one in items if isinstance(one, NarrowedGroup))
        table = Path(tempfile.gettempdir()) / job.importance_file.name
        how = job.estimation
        request = EstimationRequest(network, choices, task, how.samples, how.max_kernel, table, widths)
        with placed(network.module, device), heap_kept():
            return list(rows_here(request, silent, how.estimator))

    return measured


def importance_rows(fleet: Fleet, job: Job, key: TableKey, request: EstimationRequest) -> Iterator[ImportanceRow]:
    """Measure importance on all machines of a fleet that have the files of a job."""
    setting = ImportanceSetting(job, Path.cwd(), key)
    work = Work(open_importance, setting, "machine", IMPORTANCE_GROUP)
    items: list[Choice | NarrowedGroup] = [*request.choices, *request.narrowed]
    return fleet.results(work, items, _given_up)


def _given_up(item: Choice | NarrowedGroup, reason: str) -> ImportanceRow:
    raise RuntimeNotAvailableError(
        f"{item.key} cannot be measured: {reason}",
        hint="what was measured is kept; without --fleet the same command says what goes wrong",
    )
