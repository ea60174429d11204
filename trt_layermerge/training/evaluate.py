"""Loss and accuracy of a model, or of outputs that are at hand already, over some batches of a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

import torch
from torch import nn

from trt_layermerge.errors import TaskError
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.inputs import Values, each, samples_in
from trt_layermerge.training.task import Batch, Scoring, Task
from trt_layermerge.training.task_check import asking, checked_batches


@dataclass(frozen=True)
class Score:
    """How good a model is on some data.

    Args:
        loss: Mean loss of a sample.
        accuracy: Mean metric of a sample; for classification the share of right answers, 0..1.
        samples: Number of samples.
    """

    loss: float
    accuracy: float
    samples: int


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put all of a model in training or evaluation mode; afterwards every module has the mode it had before."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def fix_norms(model: nn.Module) -> None:
    """Put the batch norms of a model in evaluation mode, alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def evaluate(model: nn.Module, batches: Iterable[Batch], task: Task) -> Score:
    """Score a model in evaluation mode, without gradients; its modes are left as they were.

    Raises:
        TaskError: There are no batches, they are not pairs of tensors, or the metric is not one number a sample.
    """
    device = device_of(model)

    def outputs() -> Iterator[tuple[Values, Values]]:
        for inputs, target in checked_batches(task, "a data set to evaluate on", lambda: batches):
            with torch.inference_mode():  # not around the loop: a task may keep the tensors it makes, and train on them
                output = model(*moved(inputs, device))
            yield output, each(target, lambda values: values.to(device))

    with in_mode(model, training=False):
        return score(outputs(), task)


def score(outputs: Iterable[tuple[Values, Values]], task: Scoring, data: str = "the data to evaluate on") -> Score:
    """Score outputs of a model, ``[batch, ...]`` each, paired with their targets on the same device.

    Args:
        outputs: Of each batch.
        task: Whose loss and metric they are.
        data: What the data set is called in messages.

    Raises:
        TaskError: There are none, or the metric is not one number a sample.
    """
    loss, quality, samples = 0.0, 0.0, 0
    for number, (output, target) in enumerate(outputs, 1):
        count = samples_in(target)
        with torch.inference_mode(), asking(task, f"loss or metric of batch {number} of {data}"):
            metric = task.metric(output, target)
            if metric.shape != (count,) or metric.is_complex():
                kind = "complex numbers " if metric.is_complex() else ""
                raise TaskError(
                    f"task {task.name!r}: metric returns {kind}{list(metric.shape)} for a batch of {count}",
                    hint="return one real number for each sample",
                )
            loss += float(task.loss(output, target)) * count
            quality += float(metric.double().sum())
        samples += count
    if samples == 0:
        raise TaskError(f"task {task.name!r}: there is no data to evaluate on")
    return Score(loss / samples, quality / samples, samples)


def final_accuracy(outputs: Iterable[tuple[Values, Values]], task: Scoring) -> float:
    """Accuracy of outputs on the test data, which is reported.

    Raises:
        TaskError: It is no number; or see ``score``.
    """
    accuracy = score(outputs, task, "test_batches").accuracy
    if not isfinite(accuracy):
        raise TaskError(
            f"task {task.name!r}: the metric is {accuracy} on the test data",
            hint="look for targets there that are nan, and for what the metric divides by; what was trained is kept",
        )
    return accuracy
