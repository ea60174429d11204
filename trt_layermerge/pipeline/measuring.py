"""The tables that a plan rests on, each filled by a stage of its own; all of them resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import say
from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.importance.filling import RowsOf, measure, table_key
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.latency.anchored import anchored, anchors
from trt_layermerge.latency.profile import Profile, read_timing, timing_fields
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.locks import exclusive
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.pipeline.fleet_rows import importance_rows
from trt_layermerge.pipeline.keyed_file import read_keyed, write_keyed
from trt_layermerge.pipeline.profiling import profile_networks
from trt_layermerge.pipeline.session import Session, block_options
from trt_layermerge.progress import Reporter

_BASELINE = "baseline"


def profile_stage(session: Session, reporter: Reporter) -> None:
    """Measure every signature that the profile does not hold yet."""
    profile_networks([session], reporter)


def baseline_stage(session: Session, reporter: Reporter) -> Timing:
    """Measured end-to-end latency of the original, at the speed that the machine had when its profile was filled.

    It is kept, so that a plan made later rests on the same figure, for as long as the profile says the same of the
    operations that told the speed.

    Raises:
        InconclusiveError: It cannot be told; nothing is kept.
    """
    if (known := known_baseline(session)) is not None:
        return known
    job, profile = session.job, session.profile
    reporter.stage("baseline")
    shapes = batched_shapes(session.network.inputs, job.batch)
    engine = session.runtime.build(session.typed(session.original).path, job.options, shapes)
    told = _anchors(session)
    with exclusive(profile.path.parent, wait=True):  # what measures beside it would be measured, too
        timing, pace = anchored(engine, profile, told, session.runtime, block_options(job, session.runtime), job.policy)
    about = {"pace": round(pace, 4), "anchors": {one.key: latency_ns for one, latency_ns in told.items()}}
    write_keyed(job.baseline_file, _BASELINE, session.timed_key, timing_fields(timing) | about)
    return timing


def known_baseline(session: Session) -> Timing | None:
    """The original's latency as it was measured before; ``None`` where it was not, or beside rows that are no more.

    Raises:
        TableError: Its file is damaged.
    """
    found = _read_baseline(session.job.baseline_file, session.timed_key)
    return found.timing if found is not None and found.is_of(session.profile) else None


def _anchors(session: Session) -> dict[Signature, int]:
    """What tells how fast the machine is: layers as they are, and what may take their places.

    Both, for the profile may know them from different days.
    """
    kept, others = (
        [one for choice in session.choices if (choice.kind is Kind.KEEP) == keep for one in _executed(session, choice)]
        for keep in (True, False)
    )
    layers = anchors(session.profile, kept)
    return anchors(session.profile, others, max(layers.values(), default=0)) | layers


def _executed(session: Session, choice: Choice) -> Iterable[Signature]:
    """What a choice executes with all channels."""
    return session.sized[choice][0].signatures


def importance_stage(session: Session, reporter: Reporter, choices: Iterable[Choice] | None = None) -> ImportanceTable:
    """Measure what choices do to the network; without ``choices``, all of them."""
    reporter.stage("importance")
    _ = session.cautions  # said now, or nothing can be measured
    table = importance_table(session)
    _ = session.original  # as above
    wanted = session.choices if choices is None else choices
    task, how, rows_of = session.require_task(), session.job.estimation, _fleet_rows(session)
    with placed(session.network.module, session.computes_on) if rows_of is None else nullcontext():
        measure(session.network, wanted, task, table, how, reporter.progress, session.narrowed, rows_of)
    return table


def _fleet_rows(session: Session) -> RowsOf | None:
    """Who measures importance, if not this machine."""
    job = session.job
    if job.fleet is None:
        return None
    if not job.estimator.shares_work:
        say(f"--fleet measures latencies alone: the estimator {job.estimator.name} is one training, done here")
        return None
    key = table_key(session.network, session.require_task(), job.estimation)
    return partial(importance_rows, Fleet.parse(job.fleet), job, key)


def importance_table(session: Session) -> ImportanceTable:
    """The importance table of a job as it is.

    Raises:
        IncompatibleError: The one on disk belongs to another network, task or split.
        TableError: It is damaged.
    """
    key = table_key(session.network, session.require_task(), session.job.estimation)
    return ImportanceTable.open(session.job.importance_file, key)


@dataclass(frozen=True)
class _Baseline:
    """A kept latency of the original, and what its profile said of operations then, in ns, where that is told."""

    timing: Timing
    anchors: Mapping[str, int] | None

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> _Baseline:
        """The one in a record.

        Raises:
            ValueError: There is none; goes on from "it".
        """
        told = record.get("anchors")
        if told is not None and (not isinstance(told, dict) or not all(type(one) is int for one in told.values())):
            raise ValueError("has anchors that are no latencies")
        return cls(read_timing(record), told)

    def is_of(self, profile: Profile) -> bool:
        """Whether a profile says the same still."""
        says = {row.signature.key: row.timing.median_ns for row in profile if row.timing is not None}
        return self.anchors is not None and self.anchors.items() <= says.items()


def _read_baseline(path: Path, key: Mapping[str, Any]) -> _Baseline | None:
    """The baseline of these very weights, device, batch and inputs; that of others is measured again."""
    return read_keyed(path, _BASELINE, key, _Baseline.read, hint="remove it to have the original timed again")
