"""The papers' estimator: train the network with one block changed for a while, then measure.

As LayerMerge has it (arXiv 2406.12837, section 3.2): 4 % of ImageNet, one epoch, Nesterov momentum, learning rate 0.1,
half a cosine. How a choice is trained is in ``choice_training.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.importance.estimators.base import EstimationRequest, Samples, setting
from trt_layermerge.importance.estimators.trained import Trained
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.progress import Progress
from trt_layermerge.training.recipe import Recipe

if TYPE_CHECKING:
    from trt_layermerge.training.task import Task


@dataclass(frozen=True)
class Finetune(Trained):
    """One training for every choice.

    The papers follow any gradient, as without ``clip_norm``: behind each of their convolutions is a norm, and one is
    put behind each fitted one, too.
    """

    name = "finetune"
    summary = "training each choice for a while"
    group = "tuning"

    share: float = setting(0.04, "train each choice on this share of the training data")
    epochs: int = setting(1, "passes over that share")
    steps: int | None = setting(None, "steps of each training, in place of epochs")
    lr: float = setting(0.1, "peak learning rate")
    weight_decay: float = setting(1e-4, "L2 penalty on kernels")
    clip_norm: float | None = setting(None, "longest gradient; longer ones are cut", unset="any")
    seed: int = setting(0, "seed of the order of the data, and of new weights")

    @property
    def recipe(self) -> Recipe:
        """As the training loop takes it."""
        return Recipe(
            epochs=self.epochs,
            steps=self.steps,
            lr=self.lr,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            warmup=0.0,
            distillation=0.0,
            seed=self.seed,
        )

    def _phrases(self) -> Iterator[str]:
        yield from super()._phrases()
        yield "norms behind fits"  # rows of fits that had none are others

    def samples_used(self, samples: Samples) -> Samples:
        """Held out is as much as is trained on, whatever the samples say."""
        return replace(samples, held_out=0)

    def measures(self, choice: Choice) -> bool:
        """Everything: what all else is compared with, a layer that is kept, is initialised again and trained, too."""
        return True

    def rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """One training after the other; one that was interrupted goes on where it stopped."""
        from trt_layermerge.importance.choice_training import tuned_rows

        return tuned_rows(request, self)

    def forget(self, choices: Sequence[Choice], task: Task, table: Path) -> None:
        """The checkpoints of their trainings."""
        from trt_layermerge.importance.choice_training import checkpoint_of

        for left in [path for choice in choices if (path := checkpoint_of(choice, task, table)).exists()]:
            left.unlink()

    def seconds(self, request: EstimationRequest, per_image: float) -> float:
        """A step of training is three passes of the whole network, and as much data is evaluated on."""
        subset = self.subset(request.task)
        passes = 3 * self.recipe.steps_of(subset.steps_per_epoch) / subset.steps_per_epoch + 1
        return len(request.choices) * subset.images * passes * per_image
