"""A task as a job reads it: the user's, with all that it does behind the gates for user code and for batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.errors import TaskError, legible
from trt_layermerge.network.inputs import Input, each
from trt_layermerge.network.network import Network
from trt_layermerge.training.task import Batch, Classification, Expecting, Regression, Shareable, Task, Unlabelled
from trt_layermerge.training.task_check import (
    Checked,
    asking,
    check_task,
    checked_batches,
    described_value,
    require_labels,
)
from trt_layermerge.training.task_identity import identity_of
from trt_layermerge.training.unlabelled.unlabelled_task import Agreement
from trt_layermerge.usercode import user_code


class CheckedTask:
    """A task that raises ``TaskError`` and nothing else, and yields batches for one network alone.

    Calibration and held-out batches are copies: a data set may hand out one buffer again and again, and these are kept.

    Attributes:
        given: The user's task itself.

    Args:
        task: The user's.
        inputs: What the network takes, once that is known.
        scores: Shape of what the network makes of a sample, where the task's labels are classes of it.
        source: Hash of its code, where there is a file of it.

    Raises:
        TaskError: It has no name.
    """

    def __init__(
        self, task: Task, inputs: Sequence[Input] = (), source: str = "", scores: tuple[int, ...] = ()
    ) -> None:
        self.given, self._inputs, self._source, self._scores = task, tuple(inputs), source, scores
        with user_code("the task's name", TaskError):
            self.name = task.name
        if not isinstance(self.name, str):
            raise TaskError(f"the task's name is {described_value(self.name)}", hint="a text, for reports")
        self.name = legible(self.name)  # it is written to tables, which are read through a gate
        with asking(self, "metric_name"):
            if isinstance(task, Regression):  # what a task can do besides is seen by whether it has a method for it
                self.metric_name = str(task.metric_name)
        if isinstance(task, Shareable):
            self.shared = self._shared
        if expects(task):
            self.expected_loss = self._expected_loss
        if isinstance(task, Unlabelled):
            self.distances = task.distances

    def for_network(self, network: Network, device: torch.device) -> CheckedTask:
        """The same task, for a network that takes its inputs; without labels, one of being near to that network.

        Raises:
            TaskError: Without labels, its samples do not fit the network.
            LayerMergeError: The network's outputs cannot be compared, or not as the user says.
        """
        given = self.given
        if isinstance(given, Agreement):
            check_task(given, network.inputs)  # before the network is run on its data
            given = given.compared_with(network, device)
        return CheckedTask(given, network.inputs, self._source, _scores(given, network))

    def as_trained(self, batch_size: int | None, temperature: float) -> CheckedTask:
        """The same task in batches of another size and with softened distances, if it has no labels."""
        given = self.given.as_trained(batch_size, temperature) if isinstance(self.given, Agreement) else self.given
        return CheckedTask(given, self._inputs, self._source, self._scores)

    def _expected_loss(self, output: Tensor, original: Tensor) -> Tensor:
        assert isinstance(self.given, Expecting)
        with asking(self, "expected_loss"):
            return self.given.expected_loss(output, original)

    def _shared(self, rank: int, size: int) -> Task:
        assert isinstance(self.given, Shareable)
        with asking(self, "shared"):
            return CheckedTask(self.given.shared(rank, size), self._inputs, self._source, self._scores)

    @cached_property
    def content(self) -> str:
        """Hash of what the task is, whatever its name."""
        if isinstance(self.given, Agreement):  # whose targets depend on the device in their last digits
            return self.given.data_hash
        return identity_of(self, self._source)

    @property
    def steps_per_epoch(self) -> int:
        """The task's."""
        with asking(self, "steps_per_epoch"):
            return self.given.steps_per_epoch

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The task's."""
        return self._checked("training_batches", skipped=first_step, seed=seed, epoch=epoch, first_step=first_step)

    def calibration_batches(self) -> Iterator[Batch]:
        """The task's."""
        return map(_copied, self._checked("calibration_batches"))

    def held_out_batches(self) -> Iterator[Batch]:
        """The task's."""
        return map(_copied, self._checked("held_out_batches"))

    def test_batches(self) -> Iterator[Batch]:
        """The task's."""
        return self._checked("test_batches")

    def _checked(self, data: str, skipped: int = 0, **asked: int) -> Iterator[Checked]:
        batches = checked_batches(self, data, lambda: getattr(self.given, data)(**asked), self._inputs, skipped)
        for number, (inputs, target) in enumerate(batches, skipped + 1):
            if self._scores and data != "calibration_batches":  # which may have none: fits need no labels
                numbered = getattr(type(self.given), "metric", None) is Classification.metric
                require_labels(target, self._scores, self, f"batch {number} of {data}", numbered=numbered)
            yield inputs, target

    def loss(self, output: Any, target: Any) -> Tensor:
        """The task's."""
        with asking(self, "loss"):
            return self.given.loss(output, target)

    def metric(self, output: Any, target: Any) -> Tensor:
        """The task's."""
        with asking(self, "metric"):
            return self.given.metric(output, target)


def expects(task: Task) -> bool:
    """Whether a task tells expected losses, and those of its own loss: a class, or an object, may have that alone."""
    known = [getattr(one, "__dict__", {}) for one in (task, *type(task).__mro__)]

    def place(name: str) -> int:
        return next((number for number, own in enumerate(known) if name in own), len(known))

    return isinstance(task, Expecting) and place("expected_loss") <= min(place("loss"), len(known) - 1)


def _scores(task: Task, network: Network) -> tuple[int, ...]:
    """What a network makes of a sample, if it is compared with labels by the ready-made loss, which takes no others."""
    if len(network.outputs) > 1 or getattr(type(task), "loss", None) is not Classification.loss:
        return ()
    return network.output_shape


def content_of(task: Task) -> str:
    """Hash of what a task is; empty for one that is not checked, and known by its name alone."""
    return task.content if isinstance(task, CheckedTask) else ""


def _copied(batch: Checked) -> Batch:
    inputs, target = batch
    return each(inputs, Tensor.clone), each(target, Tensor.clone)
