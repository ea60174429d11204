"""How long the stages of a job will take, before they are run: from a few timed passes of the network itself."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TypedDict

import torch

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.importance.evaluator import first
from trt_layermerge.importance.filling import missing_rows
from trt_layermerge.network.device import moved, placed
from trt_layermerge.network.inputs import as_tuple, samples_in
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.profiling import profiling_plan
from trt_layermerge.pipeline.session import Session
from trt_layermerge.resources.memory import USUAL_SHARE
from trt_layermerge.training.task_check import first_batch

BUDGETS = 5
"""That are told of before one is chosen."""

TEACHER_STEP, STUDENT_STEP = 1.0, 5.0
"""A step of training in forward passes: the teacher's, and those of the student, which learns its norms, too."""

DELIVERY_S, TEST_IMAGES = 10.0, 10_000
"""Seconds for proof, export, engines and timing of a small network; a guess at the test data, which is not read yet."""

USUAL_SHARE_LEFT = 0.5
"""Of the original's time; of a plan that is not known yet."""


class StagePlan(TypedDict):
    """One stage: its name, what it would do, and how many seconds it should take."""

    stage: str
    what: str
    seconds: float


def data_plan(session: Session) -> tuple[str, ...]:
    """What a task without labels reads, how it splits that, and what it compares; nothing of any other."""
    return () if session.comparison is None else session.comparison.in_words


def memory_plan(session: Session) -> str:
    """The most memory that importance and fits will take."""
    told = "as asked for" if session.job.memory_limit is not None else f"{USUAL_SHARE:.0%} of what is free now"
    return f"importance and fits take at most {session.job.memory} of memory, {told}"


def seconds_per_image(session: Session) -> float:
    """Time of the original for one image where the job computes, in seconds: the fastest of three batches."""
    inputs, _ = next(first(session.require_task().calibration_batches(), 64))
    module, device, times = session.network.module, session.computes_on, []
    with placed(module, device), torch.inference_mode():
        for _ in range(3):
            began = time.perf_counter()
            as_tuple(module(*moved(inputs, device)))[0].cpu()  # which waits for a GPU
            times.append(time.perf_counter() - began)
    return min(times) / samples_in(inputs)


def importance_plan(session: Session, choices: Collection[Choice]) -> tuple[int, float]:
    """How many choices are still to be measured, and an estimate of the seconds it takes."""
    how = session.job.estimation
    table, task = importance_table(session), session.require_task()
    request = missing_rows(session.network, choices, task, table, how, session.narrowed)
    todo = request.missing
    return todo, how.estimator.seconds(request, seconds_per_image(session)) if todo else 0.0


def job_plan(session: Session) -> list[StagePlan]:
    """What every stage of the job would do, and how long it should take."""
    pace = seconds_per_image(session)
    refining = [_measuring(session, "refine", session.job.refine, pace)] if session.job.refine else []
    return [*_tables(session), *refining, *finishing_plan(session, pace)]


def exploration_plan(session: Session) -> list[StagePlan]:
    """The same of what is measured to tell what budgets cost."""
    return [*_tables(session), _measuring(session, "explore", BUDGETS, seconds_per_image(session))]


def _tables(session: Session) -> list[StagePlan]:
    profiling = profiling_plan([session])
    pending = profiling.missing
    choices = session.choices if pending else worthwhile(session)
    measured, importance = importance_plan(session, choices)
    if pending:
        importance /= 2  # about half of all choices turn out to be slower than keeping
    return [
        {"stage": "profile", "what": f"{pending} signatures", "seconds": profiling.seconds},
        {"stage": "importance", "what": f"{'at most ' if pending else ''}{measured} choices", "seconds": importance},
    ]


def _measuring(session: Session, stage: str, plans: int, pace: float) -> StagePlan:
    images = 20 * session.job.samples.calibration + session.job.samples.held_out
    return {"stage": stage, "what": f"{plans} plans", "seconds": plans * (images * pace + 20)}


def finishing_plan(session: Session, pace: float, left: float = USUAL_SHARE_LEFT) -> list[StagePlan]:
    """The stages once there is a plan.

    Args:
        session: The job.
        pace: Seconds that the original takes for one image where the job computes.
        left: Share of the original's time that the plan leaves.
    """
    job, task = session.job, session.training_task()
    stages: list[StagePlan] = [
        {"stage": "merge", "what": f"fits on {job.fit_samples} images", "seconds": 20 * pace * job.fit_samples},
    ]
    if job.recipe is not None:
        steps = job.recipe.steps_of(task.steps_per_epoch)
        batch = samples_in(first_batch(task, "training_batches")[0])
        seconds = steps * batch * pace * (TEACHER_STEP + STUDENT_STEP * left)
        stages.append({"stage": "fine-tune", "what": f"{steps} steps of {batch} images", "seconds": seconds})
    testing = TEST_IMAGES * pace * (1 + left)
    stages.append({"stage": "deliver", "what": "engines, proof, timing, test", "seconds": DELIVERY_S + testing})
    return stages
