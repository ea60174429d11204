"""Is what came out what the plan promised? A network that is far worse is not delivered as if all were well.

A plan predicts the held-out loss as the original's and the sum of what each of its choices costs alone. That is no
bound: choices add up differently, and training takes most of it back. So the rule is wide: the loss may grow by twice
the prediction, and beyond that by the original's own loss; in classification, by half a nat at least, since the loss of
a good network is next to nothing.
"""

from __future__ import annotations

from torch import fx

from trt_layermerge.errors import RegressionError, say
from trt_layermerge.importance.evaluator import first
from trt_layermerge.network.device import placed
from trt_layermerge.pipeline.measuring import importance_table
from trt_layermerge.pipeline.session import Session
from trt_layermerge.planning.plan import Plan
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.task import metric_name

GROWTH, NATS = 2.0, 0.5
"""Of the loss: in predictions, and beyond them in classification."""


def allowed_loss(original: float, predicted: float, *, classification: bool) -> float:
    """The largest held-out loss that is delivered.

    Args:
        original: Held-out loss of the original.
        predicted: What the plan predicts; at least the original's.
        classification: Whether losses are in nats.
    """
    return original + GROWTH * (predicted - original) + max(abs(original), NATS if classification else 0.0)


def require_as_planned(session: Session, plan: Plan, module: fx.GraphModule) -> tuple[str, ...]:
    """See that a network is not far worse on the held-out data than its plan predicts.

    Returns:
        What is to be known of it, where it is and the job accepts that.

    Raises:
        RegressionError: It is, and the job does not.
    """
    original, loss = _loss(session, session.network.module), _loss(session, module)
    table = importance_table(session)
    keys = (*plan.keys, *(width.key for width in plan.widths))
    rows = [row for key in keys if (row := table.get(key)) is not None]
    predicted = original + sum(max(0.0, row.loss_after - row.loss_before) for row in rows)
    most = allowed_loss(original, predicted, classification=metric_name(session.require_task()) is None)
    if loss <= most:
        return ()
    message = (
        f"the compressed network is far worse than planned: its held-out loss is {loss:.4g}; the plan predicts "
        f"{predicted:.4g}, the original has {original:.4g}, and up to {most:.4g} is delivered"
    )
    if not session.job.accept_worse:
        raise RegressionError(
            message, hint="train it longer, or plan with a larger --budget; --accept-worse delivers it as it is"
        )
    say(message)
    return (message,)


def _loss(session: Session, module: fx.GraphModule) -> float:
    task = session.require_task()
    with placed(module, session.computes_on):
        return evaluate(module, first(task.held_out_batches(), session.job.samples.held_out), task).loss
