"""Is what came out what the plan promised? A network that is far worse is not delivered as if all were well.

A plan predicts the held-out loss as the original's and the sum of what each of its choices costs alone. That is no
bound: choices add up differently, and training takes most of it back. So the rule is wide: the loss may grow by twice
the prediction, and beyond that by the original's own loss; in classification, by half a nat at least, since the loss of
a good network is next to nothing; without labels, where it is nothing, by half a nat or half the variance of each
output.
"""

from __future__ import annotations

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


def require_as_planned(session: Session, plan: Plan, module: fx.GraphModule) -> tuple[str, ...]:
    """See that a network is not far worse on the held-out data than its plan predicts.

    Returns:
        What is to be known of it, where it is and the job accepts that.

    Raises:
        RegressionError: It is, and the job does not.
    """
    original, loss = held_out_loss(session, session.network.module), held_out_loss(session, module)
    table = importance_table(session)
    keys = (*plan.keys, *(width.key for width in plan.widths))
    rows = [row for key in keys if (row := table.get(key)) is not None]
    predicted = original + sum(max(0.0, row.loss_after - row.loss_before) for row in rows)
    most = allowed_loss(original, predicted, margin_of(session.require_task()))
    if loss <= most:
        return ()
    message = (
        f"the compressed network is far worse than planned: its held-out loss is {loss:.4g}; the plan predicts "
        f"{predicted:.4g}, the original has {original:.4g}, and up to {most:.4g} is delivered"
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
