"""Is what came out what the plan promised? A network that is far worse is not delivered as if all were well.

A plan predicts the held-out loss as the original's and the sum of what each of its choices costs alone. That is no
bound: choices add up differently, and training takes most of it back. So the rule is wide: the loss may grow by twice
the prediction, and beyond that by the original's own loss; in classification, by half a nat at least, since the loss of
a good network is next to nothing; without labels, where it is nothing, by half a nat or half the variance of each
output. Training that made it worse is not delivered either, where what it began with can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan

from torch import fx

from trt_layermerge.errors import RegressionError, say
from trt_layermerge.importance.evaluator import first
from trt_layermerge.network.device import placed
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.plan import Plan
from trt_layermerge.training.evaluate import Score, evaluate
from trt_layermerge.training.task import Task, Unlabelled, metric_name

GROWTH, MARGIN = 2.0, 0.5
"""Of the loss: in predictions, and beyond them where losses are known to be in nats or shares of a variance."""

ROUNDING = 1e-6
"""Of a loss: so much larger is no larger."""


def allowed_loss(original: float, predicted: float, margin: float = 0.0) -> float:
    """The largest held-out loss that is delivered.

    Args:
        original: Held-out loss of the original.
        predicted: What the plan predicts; at least the original's.
        margin: What it may grow by in any case.
    """
    return original + GROWTH * (predicted - original) + max(abs(original), margin)


def margin_of(task: Task) -> float:
    """What a task's loss may grow by in any case; 0 where nothing is known of its size."""
    if isinstance(task, Unlabelled):
        return MARGIN * len(task.distances)
    return MARGIN if metric_name(task) is None else 0.0


@dataclass(frozen=True)
class Promise:
    """What a plan promises of the held-out loss.

    Attributes:
        original: The original's.
        predicted: What the plan predicts; at least the original's.
        most: The largest that is delivered.
    """

    original: float
    predicted: float
    most: float


def promised(session: Session, plan: Plan) -> Promise:
    """What a plan promises, by the importance table that it was made from."""
    original, table = held_out_loss(session, session.network.module), importance_table(session)
    keys = (*plan.keys, *(width.key for width in plan.widths))
    rows = [row for key in keys if (row := table.get(key)) is not None]
    predicted = original + sum(max(0.0, row.loss_after - row.loss_before) for row in rows)
    return Promise(original, predicted, allowed_loss(original, predicted, margin_of(session.require_task())))


def better_of(
    session: Session, promise: Promise, trained: fx.GraphModule, untrained: fx.GraphModule | None
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The network to deliver, and what to say: the one before training where that made it worse, which is so.

    1. where the held-out loss grew and the metric did not: a loss alone grows with a network's confidence, too;
    2. where the loss is above what is delivered, and was not before.

    Fits are close to the original already; few images, or steps that are too long, do more harm than good.
    """
    if untrained is None:
        return trained, ()
    was, now = held_out_score(session, untrained), held_out_score(session, trained)
    before, after = (inf if isnan(score.loss) else score.loss for score in (was, now))
    if after <= before + ROUNDING or (now.accuracy > was.accuracy and (after <= promise.most or before > promise.most)):
        return trained, ()
    message = (
        f"training led away from the original and is not used: its held-out loss is {after:.4g}, before it was "
        f"{before:.4g}; more images, a lower --lr or more --epochs may help"
    )
    say(message)
    return untrained, (message,)


def require_as_planned(session: Session, promise: Promise, module: fx.GraphModule) -> tuple[str, ...]:
    """See that a network is not far worse on the held-out data than its plan promises.

    Returns:
        What is to be known of it, where it is and the job accepts that.

    Raises:
        RegressionError: It is, and the job does not.
    """
    loss = held_out_loss(session, module)
    if loss <= promise.most:
        return ()
    message = (
        f"the compressed network is far worse than planned: its held-out loss is {loss:.4g}; the plan predicts "
        f"{promise.predicted:.4g}, the original has {promise.original:.4g}, and up to {promise.most:.4g} is delivered"
    )
    if not session.job.accept_worse:
        raise RegressionError(
            message,
            hint="train it longer, at a lower --lr or not at all (--no-finetune), or plan with a larger --budget; "
            "--accept-worse delivers it as it is",
        )
    say(message)
    return (message,)


def held_out_score(session: Session, module: fx.GraphModule) -> Score:
    """On as much data as importance is measured on."""
    task = session.require_task()
    with placed(module, session.computes_on):
        return evaluate(module, first(task.held_out_batches(), session.job.samples.held_out), task)


def held_out_loss(session: Session, module: fx.GraphModule) -> float:
    """The loss of that."""
    return held_out_score(session, module).loss
