"""Gates as an estimator: one training tells which activations can go, and what is lost with those of each block.

How gates are trained and asked is in ``gate_training.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.base import EstimationRequest, Samples, setting
from trt_layermerge.importance.estimators.trained import Trained
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.network.chain import Chain
from trt_layermerge.progress import Progress
from trt_layermerge.training.recipe import Recipe

if TYPE_CHECKING:
    from trt_layermerge.network.network import Network
    from trt_layermerge.training.task import Task


@dataclass(frozen=True)
class Gates(Trained):
    """One training for all choices, of the gates and of the weights with them.

    The penalty is what the loss is told that an activation costs: one goes if it is worth less.
    """

    name = "gates"
    summary = "one training of gates that choose activations (ELC)"
    group = "gates"
    shares_work = False

    penalty: float = setting(0.1, "what an activation costs: it goes if it is worth less")
    share: float = setting(1.0, "train on this share of the training data")
    epochs: int = setting(1, "passes over that share")
    lr: float = setting(0.02, "peak learning rate")
    distillation: float = setting(0.0, "weight of the original's outputs, 0 to 1")
    seed: int = setting(0, "seed of the order of the data")

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        if not 0 < self.penalty < math.inf:
            raise UsageError(f"gates: penalty is {self.penalty!r}; it must be above 0, or no gate would close")
        super().__post_init__()

    @property
    def recipe(self) -> Recipe:
        """As the training loop takes it."""
        return Recipe(
            epochs=self.epochs,
            lr=self.lr,
            distillation=self.distillation,
            gate_penalty=self.penalty,
            seed=self.seed,
        )

    def samples_used(self, samples: Samples) -> Samples:
        """Nothing is fitted."""
        return replace(samples, calibration=0)

    def require_task(self, task: Task, network: Network) -> None:
        """See that nothing but logits is distilled.

        Raises:
            UsageError: The gates distil, and the outputs are something else.
        """
        from trt_layermerge.training.distillation import require_logits

        if self.distillation > 0:
            require_logits(network, task, "the gates distil", hint=f"pass {self.option('distillation')} 0")

    def require_measurable(self, network: Network, choices: Sequence[Choice]) -> None:
        """Gates remove activations, and a merge may do more.

        Raises:
            UsageError: One of them is no merge of all layers of its block, or has a group norm inside.
        """
        for choice in choices:
            if choice.kind is Kind.KEEP:
                continue
            if choice.kind is not Kind.MERGE or len(choice.kept) < len(choice.block):
                raise UsageError(
                    f"the estimator gates cannot measure {choice.key!r}: gates remove activations, and it does more",
                    hint="plan with --method depth, or measure with another --estimator",
                )
            if has_front_inside(network.chains[choice.block.chain], choice.block):
                raise UsageError(
                    f"the estimator gates cannot measure {choice.key!r}: it merges across a group norm, which has no "
                    "gate",
                    hint="measure with --estimator product",
                )

    def rows(self, request: EstimationRequest, progress: Progress) -> Iterator[ImportanceRow]:
        """The training, if it is not done yet, then every choice with its gates closed."""
        from trt_layermerge.importance.gate_training import gate_rows

        return gate_rows(request, self, progress)

    def seconds(self, request: EstimationRequest, per_image: float) -> float:
        """What is left of the training, three passes a step; then all of the network for every choice."""
        from trt_layermerge.importance.gate_training import left_to_train

        trained = 3 * left_to_train(request, self)
        return (trained + len(request.choices) * request.samples.held_out) * per_image


def has_front_inside(chain: Chain, block: Block) -> bool:
    """Whether a norm that is part of no convolution stands inside a block."""
    return any(layer.pre_norm is not None for layer in chain.layers[block.start + 1 : block.end])
