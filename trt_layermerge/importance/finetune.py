"""The papers' estimator: train the network with one block changed for a while, then measure.

Only that block is modified: its activations are gone, its padding is hoisted, and of its convolutions those with the
largest sum of L1 norms are kept. The network is trained on a subset of the training data and judged on as much that
training does not see (LayerMerge, section 3.2: 4 % of ImageNet, one epoch, Nesterov momentum, learning rate 0.1, half
a cosine). A layer that is kept is initialised anew, so that it is worth what training gives it, like the rest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import torch
from torch import fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import DivergedError
from trt_layermerge.importance.judge import Judge, first
from trt_layermerge.importance.settings import in_words, require_in_range
from trt_layermerge.importance.subset import Subset
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.in_place import PLAIN
from trt_layermerge.merging.linear import called
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import carry_out
from trt_layermerge.network.device import CPU, placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.network import Network
from trt_layermerge.training.evaluate import Score, evaluate
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Task
from trt_layermerge.training.team import Alone


@dataclass(frozen=True)
class Tuning:
    """How each changed network is trained.

    Attributes:
        share: Of the training data.
        epochs: Passes over that subset.
        steps: In place of them.
        lr: Learning rate at its peak.
        weight_decay: L2 penalty.
        clip_norm: Longest gradient that is followed as it is. The papers follow any, as ``None`` does: behind each of
            their convolutions is a norm, and one is put behind each fitted one, too.
        seed: Of the subset, its order and new weights.
    """

    share: float = 0.04
    epochs: int = 1
    steps: int | None = None
    lr: float = 0.1
    weight_decay: float = 1e-4
    clip_norm: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        require_in_range("tuning", self.share, lambda: self.recipe)

    def __str__(self) -> str:
        """All of it, as it stands in a table's key; rows of fits that had no norms are others."""
        return f"{in_words(self)}, norms behind fits"

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


def tuned_rows(
    network: Network, choices: Sequence[Choice], task: Task, tuning: Tuning, calibration: int, table: Path
) -> Iterator[ImportanceRow]:
    """Train and measure choices, each for itself; one that was interrupted goes on where it stopped.

    Args:
        network: The original, which is not changed.
        choices: What to measure.
        task: Data and loss.
        tuning: How to train.
        calibration: Images that fits are solved on before they are trained.
        table: The table's file; the checkpoint of the choice in hand lies beside it.
    """
    subset = Subset.of(task, tuning.share, tuning.seed)
    judge = Judge(network, task, first(task.held_out_batches(), subset.images))
    inputs = [batch for batch, _ in first(task.calibration_batches(), calibration)]
    for choice in choices:
        began = time.monotonic()
        model = changed_network(network, choice, inputs, tuning.seed)
        checkpoint = table.with_name(f"{table.stem}-{_digest(choice)}.checkpoint.safetensors")
        after = _trained(model, subset, tuning, checkpoint, judge)
        yield judge.row(choice, after, None, time.monotonic() - began)
        checkpoint.unlink(missing_ok=True)  # the row is in the table by now


def changed_network(network: Network, choice: Choice, inputs: Sequence[Values], seed: int) -> fx.GraphModule:
    """The network with one choice made and nothing merged yet: what is trained."""
    if choice.kind is not Kind.KEEP:
        module = carry_out(network, [choice], inputs, strength=PLAIN).linearised
        restore_norms(module, network, [choice], inputs)
        return module
    module = rewrite(network, {})
    layer = network.chains[choice.block.chain].layers[choice.block.end - 1]
    with torch.random.fork_rng([]):
        torch.manual_seed(mixed_seed(seed, choice.block.chain, choice.block.end))
        for node in (layer.conv, layer.norm):
            part = None if node is None else called(module, node)
            if isinstance(part, (nn.Conv2d, nn.BatchNorm2d)):
                with placed(part, CPU):  # the same numbers are drawn for every device
                    part.reset_parameters()
    return module.eval()


def _trained(model: fx.GraphModule, subset: Subset, tuning: Tuning, checkpoint: Path, judge: Judge) -> Score:
    """Score of a network after its training; infinitely bad where that diverges."""
    try:
        # Alone: other processes of the job wait for the plan.
        fine_tune(model, subset, tuning.recipe, checkpoint=checkpoint, team=Alone())
    except DivergedError:
        return Score(inf, -inf, subset.images)
    return evaluate(model, judge.held_out, subset.whole)


def _digest(choice: Choice) -> str:
    return hashlib.sha256(choice.key.encode()).hexdigest()[:12]
