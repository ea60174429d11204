"""A part of a task's training data, for estimators that train for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

from torch import Tensor

from trt_layermerge.network.inputs import samples_in
from trt_layermerge.training.task import Batch, Task, Unlabelled
from trt_layermerge.training.task_check import first_batch, require_steps
from trt_layermerge.training.unlabelled.distances import Distance


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
        kind = ComparedSubset if isinstance(task, Unlabelled) else cls
        return kind(task, steps, steps * samples_in(target))

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

    def loss(self, output: Any, target: Any) -> Tensor:
        return self.whole.loss(output, target)

    def metric(self, output: Any, target: Any) -> Tensor:
        return self.whole.metric(output, target)


class ComparedSubset(Subset):
    """A part of the data of a task without labels, which is one."""

    @property
    def distances(self) -> Mapping[str, Distance]:
        assert isinstance(self.whole, Unlabelled)
        return self.whole.distances
