"""What a student network learns from its teacher: softened logits, compared."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from trt_layermerge.errors import UsageError
from trt_layermerge.network.network import Network
from trt_layermerge.training.task import Regression, Task


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)).

    As in Hinton, Vinyals and Dean, arXiv 1503.02531, section 2; T^2 keeps the gradient's size as T changes.

    Args:
        student: Logits ``[batch, classes, ...]``.
        teacher: Logits of the same shape.
        temperature: T, above 0.

    Returns:
        A scalar: the mean over the batch and over every further position.

    Raises:
        UsageError: There are not two classes to choose between: the divergence would be 0 whatever the student does.
    """
    if student.ndim < 2 or student.shape[1] < 2:
        raise UsageError(
            f"outputs {list(student.shape)} are no logits of two classes or more, and nothing else is distilled",
            hint="set distillation to 0 for a network with one output a sample",
        )
    learned = functional.log_softmax(student / temperature, 1)
    taught = functional.log_softmax(teacher / temperature, 1)
    divergence = functional.kl_div(learned, taught, reduction="none", log_target=True)
    return divergence.sum(1).mean() * temperature**2


def require_logits(network: Network, task: Task, who: str, hint: str) -> None:
    """See that a network's outputs are what can be distilled.

    Args:
        network: The teacher.
        task: What it is trained for.
        who: Who distils, for the message: a subject and a verb.
        hint: What to do where nothing can be.

    Raises:
        UsageError: They are no logits of several classes.
    """
    if len(network.outputs) > 1:
        raise UsageError(f"{who}, and {network.name} returns several tensors: which are logits is not known", hint=hint)
    if isinstance(task, Regression):
        raise UsageError(f"{who}, and the outputs of task {task.name!r} are no logits", hint=hint)
    if (*network.output_shape, 1)[0] < 2:
        raise UsageError(f"{who}, and the network has one output a sample: no logits of several classes", hint=hint)
