"""One lookup table for several networks: which of their operations it lacks, how long those take, and filling it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from trt_layermerge.blocks.gap_signature import AnySignature, GapSignature
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.latency.measure import DeviceRunner, estimate_seconds, fill, missing, rebuilt
from trt_layermerge.latency.profile import file_name
from trt_layermerge.locks import exclusive
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.cut import between
from trt_layermerge.network.inputs import as_inputs, batched_shapes
from trt_layermerge.pipeline.fleet_rows import FleetRunner
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.session import Session, block_options, open_session
from trt_layermerge.progress import Progress, Reporter
from trt_layermerge.runtimes.models import with_shapes


@dataclass(frozen=True)
class NetworkRows:
    """What a table has of one network.

    Attributes:
        model: Model spec.
        operations: How many operations of it a table can hold, each once.
        missing: How many of them are still to be measured.
    """

    model: str
    operations: int
    missing: int


@dataclass(frozen=True)
class ProfilingPlan:
    """What is still to be measured.

    Attributes:
        path: The table.
        networks: What it has of each network.
        missing: How many operations are to be measured for all of them together.
        seconds: How long that should take.
    """

    path: Path
    networks: tuple[NetworkRows, ...]
    missing: int
    seconds: float


def open_sessions(job: Job, models: Sequence[str]) -> tuple[Session, ...]:
    """The sessions of several networks that share all other settings; of several, each has a folder of its own."""
    if len(models) == 1:
        return (open_session(replace(job, model=models[0])),)
    return tuple(open_session(replace(job, model=one, output=job.output / file_name(one)[-100:])) for one in models)


def profiling_plan(sessions: Sequence[Session]) -> ProfilingPlan:
    """What is still to be measured for networks that are profiled with the same settings."""
    profile, policy = sessions[0].profile, sessions[0].job.policy
    rows = []
    for session in sessions:
        wanted = wanted_signatures(session)
        distinct = {one.key for one in wanted if not one.empty}
        rows.append(NetworkRows(session.job.model, len(distinct), len(missing(wanted, profile, policy))))
    together = _together(sessions)
    pending, seconds = missing(together, profile, policy), estimate_seconds(together, profile, policy)
    return ProfilingPlan(profile.path, tuple(rows), len(pending), seconds)


def rows_left(sessions: Sequence[Session]) -> int:
    """How many operations of networks their profile has no row of."""
    profile = sessions[0].profile
    return len({one.key for one in _together(sessions) if not one.empty and profile.get(one) is None})


def profile_networks(sessions: Sequence[Session], reporter: Reporter, max_seconds: float | None = None) -> int:
    """Measure every signature that the profile does not hold yet.

    Args:
        sessions: Of networks that share all other settings.
        reporter: Told of every row.
        max_seconds: Time after which no group of operations is begun any more; ``None`` for no limit.

    Returns:
        How many rows were measured.

    Raises:
        ProofError: A network as ONNX is another one; nothing was measured.
    """
    reporter.stage("profile")
    began, measured, left = time.monotonic(), 0, max_seconds
    for _ in range(2):  # with all channels, and then what pays with fewer
        measured += measure_rows(sessions, _together(sessions), reporter.progress, left)
        left = None if max_seconds is None else max_seconds - (time.monotonic() - began)
    return measured


def measure_rows(
    sessions: Sequence[Session],
    signatures: Iterable[AnySignature],
    progress: Progress,
    max_seconds: float | None = None,
) -> int:
    """Measure those of some operations of networks that their profile does not hold yet; see ``profile_networks``."""
    job, runtime, profile = sessions[0].job, sessions[0].runtime, sessions[0].profile
    wanted = {one.key: one for one in signatures}
    if not missing(wanted.values(), profile, job.policy) and profile.in_order:
        return 0
    for session in sessions:
        own = [one for one in wanted_signatures(session) if one.key in wanted]
        if missing(own, profile, job.policy):
            _ = session.original  # compared with its source before anything is measured
    again, options = rebuilt(wanted.values(), job.policy), block_options(job, runtime)
    here = DeviceRunner(runtime, options, job.policy, partial(_gap_model, sessions), again)
    runner = here if job.fleet is None else FleetRunner(Fleet.parse(job.fleet), here)
    # Two processes that measure on one device measure each other; and what one has measured the other need not.
    with exclusive(profile.path.parent, wait=True):
        profile.reread()
        return fill(profile, wanted.values(), runner, progress, max_seconds)


def wanted_signatures(session: Session) -> list[AnySignature]:
    """All operations whose latency can matter to a plan of a network, perhaps several times.

    With fewer channels, those of choices that pay with all of them. While that is not known, of none.
    """
    sizes = session.sized.values()
    wanted: list[AnySignature] = [signature for size in sizes for signature in size[0].signatures]
    wanted += session.gap_signatures.values()
    if session.offered and not missing(wanted, session.profile, session.job.policy):
        paying = (session.sized[choice] for choice in worthwhile(session))
        wanted += [signature for size in paying for one in size[1:] for signature in one.signatures]
    return wanted


def _together(sessions: Sequence[Session]) -> list[AnySignature]:
    return [one for session in sessions for one in wanted_signatures(session)]


def _gap_model(sessions: Sequence[Session], signature: GapSignature) -> onnx.ModelProto:
    """A gap of the first network that has it as ONNX, for the batch of its signature.

    Raises:
        InputError: It cannot be written as ONNX.
    """
    session, gap = next(
        (session, session.network.gaps[number])
        for session in sessions
        for number, one in session.gap_signatures.items()
        if one == signature
    )
    part = fold_norms(between(session.network.module, gap.input, gap.output))
    given = as_inputs(gap.input_shape)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gap.onnx"
        export_onnx(part, given, path)
        return with_shapes(onnx.load(path), batched_shapes(given, signature.batch))
