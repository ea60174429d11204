"""What the estimators that train have in common: a share of the training data, a seed, a recipe."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.base import Estimator
from trt_layermerge.training.recipe import Recipe

if TYPE_CHECKING:
    from trt_layermerge.importance.subset import Subset
    from trt_layermerge.training.task import Task


class Trained(Estimator):
    """An estimator with the fields ``share`` and ``seed``; where they stand among the others is part of its key."""

    trains = True

    share: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        if not 0 < self.share <= 1:
            raise UsageError(f"{self.group}: share is {self.share!r}; it must be above 0 and at most 1")
        try:
            _ = self.recipe
        except UsageError as error:
            raise UsageError(f"{self.group}: {error.message.removeprefix('recipe: ')}", hint=error.hint) from error

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """As the training loop takes it."""

    def subset(self, task: Task) -> Subset:
        """The share of a task's training data.

        Raises:
            TaskError: The task has nothing to train on, or what it yields is no batch.
        """
        from trt_layermerge.importance.subset import Subset

        return Subset.of(task, self.share, self.seed)
