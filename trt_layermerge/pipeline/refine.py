"""Deciding between plans by measurement: the best around the budget are executed, timed interleaved, and evaluated.

A plan's latency and loss are predicted as sums over its blocks, and that latencies and losses add up is an assumption.
What a candidate turned out to be goes into a journal beside the plan as soon as it is known, so that a job that is
killed measures on where it stopped. Nothing is trained here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.typed import typed_path
from trt_layermerge.files import sha256
from trt_layermerge.importance.evaluator import first, within
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.journal import Format, Journal, Record, Types, typed
from trt_layermerge.latency.measure import compare
from trt_layermerge.log import record
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_frontier import frontier_of
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import chosen, decide, kept_plan, tables_stage, with_kept
from trt_layermerge.planning.plan import Plan, PlanFile, Refined
from trt_layermerge.progress import Reporter
from trt_layermerge.training.evaluate import evaluate

_LOG = logging.getLogger(__name__)

ORIGINAL = "original"

_FORMAT = Format(
    "refinement", 1, {"settings": (str,)}, "remove the file to have its plans measured again; all else is kept"
)
_EXECUTED: Types = {"plan": (str,), "loss": (float, int), "onnx": (str,)}
_TIMED: Types = {"plan": (str,), "measured_ns": (int,), "original_ns": (int,)}


@dataclass(frozen=True)
class _Executed:
    """A plan that was executed: its held-out loss after fitting, and the hash of its ONNX file."""

    plan: str
    loss: float
    onnx: str


@dataclass(frozen=True)
class _Timed:
    """A plan whose engine was timed interleaved with the original's; medians in ns."""

    plan: str
    measured_ns: int
    original_ns: int


class _Measured:
    """What is known of plans, on disk and in memory."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.executed: dict[str, _Executed] = {}
        self.timed: dict[str, _Timed] = {}
        for number, line in journal:
            try:
                self._know(_read(line))
            except ValueError as error:
                raise journal.malformed(number, error) from error

    def add(self, row: _Executed | _Timed) -> None:
        """Append a row; when this returns it is on disk."""
        self._journal.append(asdict(row))
        self._know(row)

    def _know(self, row: _Executed | _Timed) -> None:
        if isinstance(row, _Executed):
            self.executed[row.plan] = row
        else:
            self.timed[row.plan] = row


def refine_stage(session: Session, reporter: Reporter) -> PlanFile:
    """All stages up to the plan, which measurement decides for; one that was decided for before is kept.

    Raises:
        LayerMergeError: See the stages; or a journal is damaged.
    """
    if (file := kept_plan(session)) is not None:
        return file
    job = session.job
    baseline, table = tables_stage(session, reporter)
    reporter.stage("solve")
    around = frontier_of(session, baseline, table).around(job.budget.nanoseconds(baseline.median_ns), job.refine)
    plans = tuple(with_kept(plan, table) for plan in around)
    reporter.stage("refine")
    journal = Journal.open(job.refine_file(session.fingerprint), _FORMAT, {"settings": session.fingerprint})
    measured = _Measured(journal)
    if any(_digest(plan) not in measured.timed for plan in plans):
        _measure(session, plans, measured, table, reporter)
    refined = ranked(job, plans, measured)
    best = next(plan for plan, one in zip(plans, refined, strict=True) if one.chosen)
    for one in refined:
        message = "plan %d measured %.4g ms, held-out loss %.4g%s"
        chosen_one = ", chosen" if one.chosen else ""
        record(_LOG.info, "refined", message, one.rank, one.measured_ns / 1e6, one.loss, chosen_one, **asdict(one))
    file = decide(session, best, table, refined)
    for plan in plans:
        for path in (_onnx(job, plan), typed_path(_onnx(job, plan), job.options.precision)):
            path.unlink(missing_ok=True)
    return file


def ranked(job: Job, plans: Sequence[Plan], measured: _Measured) -> tuple[Refined, ...]:
    """The plans with their figures, and the first by measurement chosen.

    Those whose measured latency keeps the budget come first, by loss; then the others, by latency: so if none keeps it
    the fastest is chosen. A budget that is a share is one of the original as it was timed interleaved with the plan.
    """

    def place(plan: Plan) -> tuple[bool, float, float]:
        timed, loss = measured.timed[_digest(plan)], measured.executed[_digest(plan)].loss
        latency = timed.measured_ns / timed.original_ns
        exceeds = timed.measured_ns > job.budget.nanoseconds(timed.original_ns)
        return (exceeds, latency, loss) if exceeds else (exceeds, loss, latency)

    order = sorted(range(len(plans)), key=lambda index: place(plans[index]))
    return tuple(
        Refined(
            rank=index + 1,
            measured_rank=order.index(index) + 1,
            predicted_ns=plan.latency_ns,
            measured_ns=measured.timed[_digest(plan)].measured_ns,
            original_ns=measured.timed[_digest(plan)].original_ns,
            objective=plan.objective,
            loss=measured.executed[_digest(plan)].loss,
            chosen=order[0] == index,
        )
        for index, plan in enumerate(plans)
    )


def _measure(
    session: Session, plans: Iterable[Plan], measured: _Measured, table: ImportanceTable, reporter: Reporter
) -> None:
    """Execute the plans that are not on disk, and time all of them interleaved with the original."""
    job, todo = session.job, list(plans)
    before = max((row.loss_before for row in table), default=0.0)
    for number, plan in enumerate(todo):
        reporter.progress(number, len(todo) + 1, f"plan {number + 1}")
        known = measured.executed.get(_digest(plan))
        if known is None or not _onnx(job, plan).exists() or sha256(_onnx(job, plan)) != known.onnx:
            measured.add(_execute(session, plan, before))
    reporter.progress(len(todo), len(todo) + 1, "time all of them interleaved")
    shapes = batched_shapes(session.network.inputs, job.batch)
    files = {ORIGINAL: session.original} | {_digest(plan): _onnx(job, plan) for plan in todo}
    engines = {
        name: session.runtime.build(session.typed(file).path, job.options, shapes) for name, file in files.items()
    }
    timings = compare(engines, job.final_policy)
    for plan in todo:
        name = _digest(plan)
        measured.add(_Timed(name, timings[name].median_ns, timings[ORIGINAL].median_ns))
    reporter.progress(len(todo) + 1, len(todo) + 1, "")


def _execute(session: Session, plan: Plan, before: float) -> _Executed:
    """Make a plan's network, on the data of the importance table, evaluate it, and write it down as ONNX.

    Args:
        session: The job.
        plan: What to execute.
        before: Loss of the original.
    """
    job, task = session.job, session.require_task()
    batches = [inputs for inputs, _ in first(task.calibration_batches(), job.samples.calibration)]
    device, what = session.computes_on, chosen(session, plan)
    executed = execute_on(device, session.network, what.choices, batches, strength=job.strength, kept=what.kept)
    model = fold_norms(executed.merged)
    with placed(model, device):
        loss = evaluate(model, first(task.held_out_batches(), job.samples.held_out), task).loss
    path = _onnx(job, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, session.network.inputs, path)
    return _Executed(_digest(plan), within(loss, before), sha256(path))


def _digest(plan: Plan) -> str:
    """Names a plan by what it does, whatever its latencies are."""
    named = (*plan.keys, *(width.key for width in plan.widths))
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def _onnx(job: Job, plan: Plan) -> Path:
    return job.output / f"plan-{_digest(plan)}.onnx"


def _read(record: Record) -> _Executed | _Timed:
    """A row from its record.

    Raises:
        ValueError: It is none.
    """
    if "onnx" in record:
        return _Executed(**typed(record, _EXECUTED))
    timed = _Timed(**typed(record, _TIMED))
    if not (timed.measured_ns > 0 and timed.original_ns > 0):
        raise ValueError("has a latency that is not positive")
    return timed
