"""Gates as an estimator: one training tells which activations can go, and what is lost with those of each block.

In one copy of the network every activation that a merge could remove gets a gate. All of them are trained together,
with the weights, while a penalty pulls them to 1: the activations that the network can do without become linear, those
that matter do not. A row then says what that network loses when the gates inside a block are closed: nothing, where
they have closed by themselves. Which blocks are merged is for a plan to say, from these rows and from latencies.

Gates judge activations alone. Merging moves the padding of a block to its input, too; decoupling fades that in while
the network trains (``training/decoupling.py``), and rows leave it out. Convolutions are never dropped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import fx

from trt_layermerge.blocks.candidates import blocks_of, composed_geometry
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.errors import DivergedError, UsageError
from trt_layermerge.importance.judge import first, require_finite, row
from trt_layermerge.importance.settings import in_words, require_in_range
from trt_layermerge.importance.subset import Subset
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.chain import Chain, Layer
from trt_layermerge.network.network import Network
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.gates import closed, gated
from trt_layermerge.training.loop import Progress, fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Task
from trt_layermerge.training.team import Alone


@dataclass(frozen=True)
class Gating:
    """How gates are trained, and the weights with them.

    Attributes:
        penalty: What the loss is told that an activation costs: one goes if it is worth less.
        share: Of the training data.
        epochs: Passes over that subset.
        lr: Learning rate at its peak.
        distillation: Weight of the original's word against the label's, 0..1, for networks that classify.
        seed: Of the subset and its order.
    """

    penalty: float = 0.1
    share: float = 1.0
    epochs: int = 1
    lr: float = 0.02
    distillation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a number out of its range."""
        if not 0 < self.penalty < math.inf:
            raise UsageError(f"gates: penalty is {self.penalty!r}; it must be above 0, or no gate would close")
        require_in_range("gates", self.share, lambda: self.recipe)

    def __str__(self) -> str:
        """All of it, as it stands in a table's key."""
        return in_words(self)

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


def gate_rows(
    network: Network,
    choices: Sequence[Choice],
    task: Task,
    gating: Gating,
    held_out: int,
    max_kernel: int,
    table: Path,
    progress: Progress,
) -> Iterator[ImportanceRow]:
    """Train the gates, if that was not done before, and measure choices with them.

    Args:
        network: The original, which is not changed.
        choices: What to measure; see ``require_gates``.
        task: Data and loss.
        gating: How to train.
        held_out: Images that losses are measured on.
        max_kernel: The largest kernel of a merge, which decides what has a gate.
        table: The table's file; the trained network is kept beside it.
        progress: Told of the training.
    """
    trained = fold_norms(_trained(network, task, gating, max_kernel, table, progress))
    data = list(first(task.held_out_batches(), held_out))
    # Computed as what follows is, so that gates which are closed already cost exactly nothing.
    before = evaluate(trained, data, task)
    require_finite(before, network, task)
    for choice in choices:
        began = time.monotonic()
        with closed(trained, inner_layers(network.chains[choice.block.chain], choice.block)):
            after = evaluate(trained, data, task)
        yield row(choice, before, after, None, time.monotonic() - began)


def left_to_train(task: Task, gating: Gating, table: Path) -> float:
    """Images that the gates' training has still to see, for a table's file.

    Raises:
        TableError: The checkpoint of a training that was begun is damaged.
    """
    subset, checkpoint = Subset.of(task, gating.share, gating.seed), _checkpoint(table)
    steps = gating.recipe.steps_of(subset.steps_per_epoch)
    done = Checkpoint.read(checkpoint).position.step if checkpoint.exists() else 0
    return (steps - done) * subset.images / subset.steps_per_epoch


def inner_layers(chain: Chain, block: Block) -> tuple[Layer, ...]:
    """The layers whose activations lie strictly inside a block: a merge removes these."""
    return chain.layers[block.start : block.end - 1]


def removable(network: Network, max_kernel: int) -> tuple[Layer, ...]:
    """The layers whose activations some merge removes, of any number of layers with a kernel of at most ``max_kernel``.

    That does not depend on which merges are wanted, or rows would.
    """
    found: set[str | None] = {None}
    for chain in network.chains:
        for block in blocks_of(chain, len(chain)):
            inner = {layer.act for layer in inner_layers(chain, block)}
            if not inner <= found and _mergeable(chain, block, max_kernel):
                found |= inner
    return tuple(layer for layer in network.layers if layer.act is not None and layer.act in found)


def require_gates(network: Network, choices: Sequence[Choice]) -> None:
    """See that gates can measure choices.

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
        if _has_front_inside(network.chains[choice.block.chain], choice.block):
            raise UsageError(
                f"the estimator gates cannot measure {choice.key!r}: it merges across a group norm, which has no gate",
                hint="measure with --estimator product",
            )


def _mergeable(chain: Chain, block: Block, max_kernel: int) -> bool:
    if _has_front_inside(chain, block):
        return False
    return max(composed_geometry(chain, block, tuple(range(block.start + 1, block.end + 1))).kernel) <= max_kernel


def _has_front_inside(chain: Chain, block: Block) -> bool:
    return any(layer.front is not None for layer in chain.layers[block.start + 1 : block.end])


def _checkpoint(table: Path) -> Path:
    return table.with_name(f"{table.stem}-gates.checkpoint.safetensors")


def _trained(
    network: Network, task: Task, gating: Gating, max_kernel: int, table: Path, progress: Progress
) -> fx.GraphModule:
    """The network with its gates trained; what an interrupted call began is finished, what is done is read."""
    module = gated(network, removable(network, max_kernel)).module
    checkpoint = _checkpoint(table)
    try:
        fine_tune(
            module,
            Subset.of(task, gating.share, gating.seed),
            gating.recipe,
            checkpoint=checkpoint,
            teacher=network.module,
            progress=progress,
            team=Alone(),  # other processes of the job wait for the plan
        )
    except DivergedError as error:
        raise DivergedError(
            f"the network does not survive the training of its gates: {error.message}",
            hint=f"lower --gates-lr (it is {gating.lr:g}) or --gates-penalty (it is {gating.penalty:g}), and delete "
            f"{checkpoint} if it is there",
        ) from error
    return module
