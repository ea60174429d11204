"""What the estimator ``finetune`` does: trains the network with one block changed for a while, then measures it.

Only that block is modified: its activations are gone, its padding is hoisted, and of its convolutions those with the
largest sum of L1 norms are kept. The network is trained on a subset of the training data and evaluated on as much that
training does not see (LayerMerge, arXiv 2406.12837, section 3.2). A layer that is kept is re-initialised, so that it
is worth what training gives it, like the rest.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

import torch
from torch import fx, nn

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import DivergedError
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.estimators.finetune import Finetune
from trt_layermerge.importance.evaluator import Evaluator, first
from trt_layermerge.importance.subset import Subset
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.linear import called
from trt_layermerge.merging.reconstruction import PLAIN
from trt_layermerge.merging.restored_norms import restore_norms
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.device import CPU, placed
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.network import Network
from trt_layermerge.training.checked_task import content_of
from trt_layermerge.training.evaluate import Score, evaluate
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.process_group import Alone
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Task


def tuned_rows(request: EstimationRequest, how: Finetune) -> Iterator[ImportanceRow]:
    """Train and measure choices, each for itself; one that was interrupted goes on where it stopped.

    Args:
        request: What to measure; the checkpoint of the choice in hand lies beside its table.
        how: How to train.
    """
    network, task, table = request.network, request.task, request.table
    subset = how.subset(task)
    evaluator = Evaluator(network, task, first(task.held_out_batches(), subset.images))
    inputs = [batch for batch, _ in first(task.calibration_batches(), request.samples.calibration)]
    for choice in request.choices:
        began = time.monotonic()
        model = changed_network(network, choice, inputs, how.seed)
        checkpoint = checkpoint_of(choice, task, table)
        after = _trained(model, subset, how, checkpoint, evaluator)
        yield evaluator.row(choice, after, None, time.monotonic() - began)
        checkpoint.unlink(missing_ok=True)  # the row is in the table by now


def changed_network(network: Network, choice: Choice, inputs: Sequence[Values], seed: int) -> fx.GraphModule:
    """The network with one choice made and nothing merged yet: what is trained."""
    if choice.kind is not Kind.KEEP:
        module = execute(network, [choice], inputs, strength=PLAIN).linearised
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


def _trained(model: fx.GraphModule, subset: Subset, how: Finetune, checkpoint: Path, evaluator: Evaluator) -> Score:
    """Score of a network after its training; infinitely bad where that diverges."""
    try:
        # Alone: other processes of the job wait for the plan.
        teacher = fold_norms(evaluator.network.module)  # asked where there are no labels
        fine_tune(model, subset, how.recipe, checkpoint=checkpoint, teacher=teacher, group=Alone())
    except DivergedError:
        return Score(inf, -inf, subset.images)
    return evaluate(model, evaluator.held_out, subset.whole)


def checkpoint_of(choice: Choice, task: Task, table: Path) -> Path:
    """Where a training is kept while it lasts, named by what it is of, and on."""
    digest = hashlib.sha256(f"{choice.key}{content_of(task)}".encode()).hexdigest()[:12]
    return table.with_name(f"{table.stem}-{digest}.checkpoint.safetensors")
