"""A part of a task's training data, for estimators that train for a while."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil

from torch import Tensor

from trt_layermerge.training.check import first_batch, require_steps
from trt_layermerge.training.task import Batch, Task


@dataclass(frozen=True)
class Subset:
    """A part of a task's training data, as a task: the first batches of an epoch, the same ones in every epoch.

    Attributes:
        whole: The task.
        steps_per_epoch: How many batches.
        images: Samples in them.
    """

    whole: Task
    steps_per_epoch: int
    images: int

    @classmethod
    def of(cls, task: Task, share: float, seed: int) -> Subset:
        """A share of a task's data, above 0, rounded up to whole batches.

        Raises:
            TaskError: The task has nothing to train on, or what it yields is no batch.
        """
        steps = max(1, ceil(round(share * require_steps(task), 9)))
        _, target = first_batch(task, "training_batches")
        return cls(task, steps, steps * len(target))

    @property
    def name(self) -> str:
        return self.whole.name

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches, whatever the epoch."""
        batches = self.whole.training_batches(seed=seed, epoch=0, first_step=first_step)
        return islice(batches, self.steps_per_epoch - first_step)

    def calibration_batches(self) -> Iterator[Batch]:
        return self.whole.calibration_batches()

    def held_out_batches(self) -> Iterator[Batch]:
        return self.whole.held_out_batches()

    def test_batches(self) -> Iterator[Batch]:
        return self.whole.test_batches()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return self.whole.loss(output, target)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        return self.whole.metric(output, target)
