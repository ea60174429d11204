"""The Python interface: a function for each command of a job, and what the command line calls.

``progress`` is called with a ``progress.Step`` whenever one is done; ``print`` will do. Errors are those of ``errors``,
and whatever was measured or trained before one is on disk: the same call goes on there. Nothing is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.latency.profile import Profile
from trt_layermerge.locks import exclusive
from trt_layermerge.pipeline import budgeted_profiling, compression, solving
from trt_layermerge.pipeline.budgeted_profiling import BudgetedProfile
from trt_layermerge.pipeline.compression import Compressed
from trt_layermerge.pipeline.correction_file import keep_correction
from trt_layermerge.pipeline.estimated_prior import estimated_prior
from trt_layermerge.pipeline.fidelity import validation_stage
from trt_layermerge.pipeline.fidelity_correction import PlanTiming, find_correction
from trt_layermerge.pipeline.job_frontier import wanted_choices
from trt_layermerge.pipeline.measuring import importance_stage, importance_table
from trt_layermerge.pipeline.profiling import open_sessions, profile_networks, rows_left
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.settings import job_of
from trt_layermerge.pipeline.solving import Solution
from trt_layermerge.pipeline.training import leads, share_training
from trt_layermerge.progress import Callback, reporting
from trt_layermerge.report.result import Result

if TYPE_CHECKING:
    from trt_layermerge.pipeline.settings import JobSettings


def load(model: str | Path, **settings: Unpack[JobSettings]) -> Session:
    """Load a network and all that a job names, and fail before anything long begins.

    >>> session = load("model.py", task="task.py", max_layers=2, max_kernel=5, budget=0.9)
    >>> session
    <Session of model.py: 14 choices, timed in onnxruntime>

    Args:
        model: ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory``, ``FILE.py:factory`` or ``FILE.onnx``.
        settings: What ``trt-layermerge compress --help`` lists, with underscores: ``task``, ``weights``, ``budget``,
            ``runtime``, ``output`` and so on; ``input_shape`` is ``--input``.

    Raises:
        LayerMergeError: Something is missing, or does not fit together.
    """
    return open_session(job_of(model, **settings))


def load_several(models: Sequence[str | Path], **settings: Unpack[JobSettings]) -> tuple[Session, ...]:
    """Load several networks that share all settings; each has a folder of its own.

    Raises:
        LayerMergeError: As ``load``.
    """
    return open_sessions(job_of(models[0], **settings), [str(model) for model in models])


@dataclass(frozen=True)
class Profiled:
    """What was measured into a profile.

    Attributes:
        profile: The device's lookup table, as it is now.
        measured: How many rows were measured now.
        left: How many are still to be measured, where the time was up.
    """

    profile: Profile
    measured: int
    left: int


def profile(*sessions: Session, max_minutes: float | None = None, progress: Callback | None = None) -> Profiled:
    """Measure every candidate block of networks that the profile of this device does not hold yet.

    >>> profile(load("model.py", max_layers=2, max_kernel=5)).left
    0

    Args:
        sessions: Of networks that share all settings.
        max_minutes: Time after which nothing new is begun; ``None`` for no limit.
        progress: Is told of every row.

    Raises:
        ProofError: A network as ONNX is another one; nothing was measured.
    """
    with reporting(progress) as reporter:
        measured = profile_networks(sessions, reporter, None if max_minutes is None else 60 * max_minutes)
    return Profiled(sessions[0].profile, measured, rows_left(sessions))


def profile_for_budget(
    session: Session,
    table: ImportanceTable | None = None,
    *,
    prior: str | None = None,
    max_minutes: float | None = None,
    progress: Callback | None = None,
) -> BudgetedProfile:
    """Measure what the best plan for the job's budget rests on, and stop when no other row can change it.

    Args:
        session: The job.
        table: Importances to plan with; ``None`` for those of the job.
        prior: A card that the device is like, or a file of one.
        max_minutes: Time after which nothing new is begun; ``None`` for no limit.
        progress: Is told of every row.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, even if all that is not measured is as fast as its bound.
        TableError: The table lacks a choice that is faster than keeping its layers.
    """
    like = None if prior is None else estimated_prior(prior, session.job)
    losses = importance_table(session) if table is None else table
    seconds = None if max_minutes is None else 60 * max_minutes
    with reporting(progress) as reporter:
        return budgeted_profiling.profile_for_budget(session, losses, reporter, like, seconds)


def measure_importance(
    session: Session, *, everything: bool = False, progress: Callback | None = None
) -> ImportanceTable:
    """Measure the held-out loss with each choice made alone, as far as the job's table lacks it.

    Args:
        session: The job; it needs a task.
        everything: Also choices that the profile knows to be slower than keeping their layers.
        progress: Is told of every choice.

    Raises:
        InputError: Another process is at work in the job's folder, or the data cannot be measured on.
    """
    with exclusive(session.job.output), reporting(progress) as reporter:
        return importance_stage(session, reporter, wanted_choices(session, everything))


def solve(session: Session, *, count: int = 1, progress: Callback | None = None) -> Solution:
    """Plan for the job's budget from its tables, and write the plan down.

    Args:
        session: The job; its profile and its importance table are filled.
        count: How many of the best plans to find; the first is written.
        progress: Is told of the stages.

    Raises:
        InfeasibleBudgetError: No plan meets the budget, or none does so surely enough.
        TableError: A table lacks a row that planning needs.
    """
    with reporting(progress) as reporter:
        return solving.solve(session, reporter, count)


def frontier(session: Session, *, progress: Callback | None = None) -> Solution:
    """The best plans for all budgets; nothing is decided. ``plans`` is empty: ``frontier.best(budget_ns)`` finds them.

    Raises:
        TableError: A table lacks a row that planning needs.
    """
    with reporting(progress) as reporter:
        return solving.solve(session, reporter, 0)


def compress(session: Session, *, progress: Callback | None = None) -> Compressed:
    """Measure, plan, merge, fine-tune and prove, as far as that is not on disk already; nothing is delivered.

    Raises:
        LayerMergeError: See the stages; what was measured and trained until then is on disk.
    """
    with reporting(progress) as reporter:
        return compression.compress(session, reporter)


def deliver(compressed: Compressed, *, progress: Callback | None = None) -> Result:
    """Build, verify and time engines of the compressed network and the original, and write manifest and report.

    Raises:
        LayerMergeError: An engine cannot be built, or does not compute what the network does; or the job has been
            planned anew meanwhile.
    """
    with reporting(progress) as reporter:
        return compression.deliver(compressed, reporter)


def validate(session: Session, *, plans: int = 10, progress: Callback | None = None) -> tuple[PlanTiming, ...]:
    """Predict plans that are spread over the frontier, and time their engines; no task is needed.

    What is systematic is kept beside the job's files, and corrects all plans that are made there from then on.

    Args:
        session: The job.
        plans: How many.
        progress: Is told of every plan.

    Raises:
        LayerMergeError: See the stages.
    """
    with exclusive(session.job.output), reporting(progress) as reporter:
        timed = validation_stage(session, plans, reporter)
        keep_correction(session, find_correction(timed))
    return timed


def train_along(session: Session) -> bool:
    """In a process that ``accelerate launch`` started beside the first one: train with it, and be done.

    Returns:
        Whether this is such a process; in the first one, and where there is no other, nothing happens.
    """
    if leads(session):
        return False
    share_training(session)
    return True
