"""What the estimator ``gates`` does: trains gates once, then closes those of each block and measures what is lost.

In one copy of the network every activation that a merge could remove gets a gate. All of them are trained together,
with the weights, while a penalty pulls them to 1: the activations that the network can do without become linear, those
that matter do not. A row then says what that network loses when the gates inside a block are closed: nothing, where
they have closed by themselves. Which blocks are merged is for a plan to say, from these rows and from latencies.

Gates evaluate activations alone. Merging moves the padding of a block to its input, too; decoupling fades that in while
the network trains (``training/decoupling.py``), and rows leave it out. Convolutions are never dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from torch import fx

from trt_layermerge.blocks.candidates import blocks_of, composed_geometry
from trt_layermerge.blocks.choice import Block
from trt_layermerge.errors import DivergedError
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.estimators.gates import Gates, has_front_inside
from trt_layermerge.importance.evaluator import first, require_finite, row
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.chain import Chain, Layer
from trt_layermerge.network.network import Network
from trt_layermerge.progress import Progress
from trt_layermerge.training.checked_task import content_of
from trt_layermerge.training.checkpoint import Checkpoint
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.gating import closed, gated
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Alone


def gate_rows(request: EstimationRequest, how: Gates, progress: Progress) -> Iterator[ImportanceRow]:
    """Train the gates, if that was not done before, and measure choices with them.

    Args:
        request: What to measure; the trained network is kept beside its table. The largest kernel of a merge decides
            what has a gate.
        how: How to train.
        progress: Told of the training.
    """
    network, task = request.network, request.task
    trained = fold_norms(_trained(request, how, progress))
    data = list(first(task.held_out_batches(), request.samples.held_out))
    # Computed as what follows is, so that gates which are closed already cost exactly nothing.
    before = evaluate(trained, data, task)
    require_finite(before, network, task, data)
    for choice in request.choices:
        began = time.monotonic()
        with closed(trained, inner_layers(network.chains[choice.block.chain], choice.block)):
            after = evaluate(trained, data, task)
        yield row(choice, before, after, None, time.monotonic() - began)


def left_to_train(request: EstimationRequest, how: Gates) -> float:
    """Images that the gates' training has still to see.

    Raises:
        TableError: The checkpoint of a training that was begun is damaged.
    """
    subset, checkpoint = how.subset(request.task), _checkpoint(request)
    steps = how.recipe.steps_of(subset.steps_per_epoch)
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


def _mergeable(chain: Chain, block: Block, max_kernel: int) -> bool:
    if has_front_inside(chain, block):
        return False
    return max(composed_geometry(chain, block, tuple(range(block.start + 1, block.end + 1))).kernel) <= max_kernel


def _checkpoint(request: EstimationRequest) -> Path:
    """Where the training is kept: beside the table, another one for another task of the same name."""
    name = "-".join(filter(None, [request.table.stem, "gates", content_of(request.task)]))
    return request.table.with_name(f"{name}.checkpoint.safetensors")


def _trained(request: EstimationRequest, how: Gates, progress: Progress) -> fx.GraphModule:
    """The network with its gates trained; what an interrupted call began is finished, what is done is read."""
    network, checkpoint = request.network, _checkpoint(request)
    module = gated(network, removable(network, request.max_kernel)).module
    try:
        fine_tune(
            module,
            how.subset(request.task),
            how.recipe,
            checkpoint=checkpoint,
            teacher=network.module,
            progress=progress,
            group=Alone(),  # other processes of the job wait for the plan
        )
    except DivergedError as error:
        raise DivergedError(
            f"the network does not survive the training of its gates: {error.message}",
            hint=f"lower {how.option('lr')} (it is {how.lr:g}) or {how.option('penalty')} (it is {how.penalty:g}), "
            f"and delete {checkpoint} if it is there",
        ) from error
    return module
