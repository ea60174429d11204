"""Plans as they were measured: executed, evaluated on held-out data and timed interleaved with the original.

What a plan turned out to be goes into a journal as soon as it is known, so that what is killed measures on where it
stopped. Nothing is trained here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.typed_onnx import typed_path
from trt_layermerge.files import sha256
from trt_layermerge.importance.evaluator import first, within
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.journal import Format, Journal, Record, Types, typed
from trt_layermerge.latency.measure import compare
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.device import placed
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import chosen
from trt_layermerge.planning.plan import Plan
from trt_layermerge.progress import Reporter
from trt_layermerge.training.evaluate import evaluate

ORIGINAL = "original"

REFINEMENT = Format(
    "refinement", 2, {"settings": (str,)}, "remove the file to have its plans measured again; all else is kept"
)
_EXECUTED: Record = {"plan": (str,), "loss": (float, int), "onnx": (str,)}
_ACCURACY: Record = {"accuracy": (float, int)}
_TIMED: Types = {"original_ns": (int,), "measured_ns": (dict,)}


@dataclass(frozen=True)
class ExecutedPlan:
    """A plan that was executed: its held-out loss after fitting, and the hash of its ONNX file.

    Attributes:
        plan: Its digest.
        loss: On the held-out data.
        onnx: SHA-256 of its file.
        accuracy: On the held-out data, or what the task's metric says; ``None`` in journals from before it was kept.
    """

    plan: str
    loss: float
    onnx: str
    accuracy: float | None = None


@dataclass(frozen=True)
class TimedPlan:
    """A plan whose engine was timed interleaved with the original's; medians in ns."""

    measured_ns: int
    original_ns: int


@dataclass(frozen=True)
class TimedPlans:
    """Plans that were timed together, which are one row: a kill leaves all of a measurement, or nothing.

    Attributes:
        original_ns: Median of the original among them.
        measured_ns: That of each plan, by its digest.
    """

    original_ns: int
    measured_ns: Mapping[str, int]


class MeasuredPlans:
    """What is known of plans, on disk and in memory."""

    def __init__(self, journal: Journal) -> None:
        """Read the rows of a journal.

        Raises:
            TableError: One is damaged; the message names the line.
        """
        self._journal = journal
        self._executed: dict[str, ExecutedPlan] = {}
        self._timed: dict[str, TimedPlan] = {}
        for number, record in journal:
            try:
                self._know(read_plan_row(record))
            except ValueError as error:
                raise journal.malformed(number, error) from error

    @classmethod
    def open(cls, path: Path, settings: str) -> MeasuredPlans:
        """Those of some settings, by their fingerprint.

        Raises:
            TableError: The file is damaged, or of something else.
        """
        return cls(Journal.open(path, REFINEMENT, {"settings": settings}))

    def add(self, row: ExecutedPlan | TimedPlans) -> None:
        """Append a row, unless it is there; when this returns it is on disk."""
        if isinstance(row, ExecutedPlan) and self._executed.get(row.plan) == row:
            return
        self._journal.append({name: value for name, value in asdict(row).items() if value is not None})
        self._know(row)

    def executed(self, plan: Plan) -> ExecutedPlan | None:
        """What executing a plan gave."""
        return self._executed.get(digest_of(plan))

    def timed(self, plan: Plan) -> TimedPlan | None:
        """What timing a plan gave."""
        return self._timed.get(digest_of(plan))

    def measurement(self, plan: Plan) -> tuple[ExecutedPlan, TimedPlan]:
        """All that is known of a plan that was measured."""
        digest = digest_of(plan)
        return self._executed[digest], self._timed[digest]

    def _know(self, row: ExecutedPlan | TimedPlans) -> None:
        if isinstance(row, ExecutedPlan):
            self._executed[row.plan] = row
        else:
            self._timed |= {plan: TimedPlan(ns, row.original_ns) for plan, ns in row.measured_ns.items()}


def measure_plans(
    session: Session, plans: Sequence[Plan], measured: MeasuredPlans, table: ImportanceTable, reporter: Reporter
) -> None:
    """Execute the plans that are not on disk, and time all of them interleaved; what is measured already is kept."""
    if not all(measured.timed(plan) for plan in plans):
        _measure(session, plans, measured, table, reporter)
    for plan in plans:
        for path in (_onnx(session.job, plan), typed_path(_onnx(session.job, plan), session.job.options.precision)):
            path.unlink(missing_ok=True)


def _measure(
    session: Session, plans: Iterable[Plan], measured: MeasuredPlans, table: ImportanceTable, reporter: Reporter
) -> None:
    """Execute the plans that are not on disk, and time all of them interleaved with the original."""
    job, todo = session.job, list(plans)
    before = max((row.loss_before for row in table), default=0.0)
    for number, plan in enumerate(todo):
        reporter.progress(number, len(todo) + 1, f"plan {number + 1}")
        known = measured.executed(plan)
        if known is None or not _onnx(job, plan).exists() or sha256(_onnx(job, plan)) != known.onnx:
            measured.add(execute_plan(session, plan, before))
    reporter.progress(len(todo), len(todo) + 1, "time all of them interleaved")
    shapes = batched_shapes(session.network.inputs, job.batch)
    files = {ORIGINAL: session.original} | {digest_of(plan): _onnx(job, plan) for plan in todo}
    engines = {
        name: session.runtime.build(session.typed(file).path, job.options, shapes) for name, file in files.items()
    }
    medians = {name: timing.median_ns for name, timing in compare(engines, job.final_policy).items()}
    measured.add(TimedPlans(medians.pop(ORIGINAL), medians))
    reporter.progress(len(todo) + 1, len(todo) + 1, "")


def execute_plan(session: Session, plan: Plan, before: float) -> ExecutedPlan:
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
        score = evaluate(model, first(task.held_out_batches(), job.samples.held_out), task)
    path = _onnx(job, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(model, session.network.inputs, path)
    accuracy = score.accuracy if isfinite(score.accuracy) else None
    return ExecutedPlan(digest_of(plan), within(score.loss, before), sha256(path), accuracy)


def digest_of(plan: Plan) -> str:
    """Names a plan by what it does, whatever its latencies are."""
    named = (*plan.keys, *(width.key for width in plan.widths))
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


def _onnx(job: Job, plan: Plan) -> Path:
    return job.output / f"plan-{digest_of(plan)}.onnx"


def read_plan_row(record: Record) -> ExecutedPlan | TimedPlans:
    """A row from its record.

    Raises:
        ValueError: It is none.
    """
    if "onnx" in record:
        return ExecutedPlan(**typed(record, _EXECUTED | (_ACCURACY if "accuracy" in record else {})))
    timed = TimedPlans(**typed(record, _TIMED))
    if not all(type(ns) is int and ns > 0 for ns in (timed.original_ns, *timed.measured_ns.values())):
        raise ValueError("has a latency that is no positive number of ns")
    return timed
