"""The one-shot estimators: make one change, measure the held-out loss, nothing trained.

``fit`` choices are solved on calibration data between the original's own tensors; ``merge`` choices take the product
of the weights (the estimator ``product``). The untouched part of the network before a block is computed once for all
blocks that start at the same tensor, the normal equations once for all kernels of a block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.compose import outer_skips
from trt_layermerge.errors import ModelError
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable, TableKey
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.fitting import NormalEquations, sample_positions, samples_by_batch
from trt_layermerge.merging.linear import folded, normed
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import solved
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.cut import onward, up_to
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network
from trt_layermerge.training.evaluate import Score, score
from trt_layermerge.training.task import Batch, Task

Progress = Callable[[int, int, str], None]
"""Called with choices done, choices in all, and the one in hand."""

WORST_LOSS = 1e6
"""Stands for a loss that is not finite, and with a minus for such an accuracy: tables hold numbers only."""


@dataclass(frozen=True)
class Samples:
    """How much data the estimators look at.

    Attributes:
        calibration: Images that fits are solved on.
        held_out: Images that the loss is measured on.
    """

    calibration: int = 512
    held_out: int = 1024


def table_key(network: Network, task: Task, samples: Samples) -> TableKey:
    """The key under which importances of a network on a task are kept."""
    return TableKey(network.weights_hash, task.name, samples.calibration, samples.held_out)


def measure(
    network: Network,
    choices: Iterable[Choice],
    task: Task,
    table: ImportanceTable,
    samples: Samples,
    progress: Progress = lambda done, total, label: None,
) -> None:
    """Measure every choice that the table has no row of; each row is on disk before the next choice begins.

    Args:
        network: The original.
        choices: What to measure; ``keep`` choices change nothing and are left out.
        task: Data and loss; only its calibration and held-out data are read.
        table: Where rows go.
        samples: How much data to look at.
        progress: Told of every choice.

    Raises:
        ModelError: The network itself has a loss or activations that are not finite.
        TaskError: The task has no data to fit or to judge on.
    """
    wanted = sorted((choice for choice in choices if choice.kind is not Kind.KEEP), key=lambda choice: choice.block)
    done = sum(table.get(choice.key) is not None for choice in wanted)
    if done == len(wanted):
        return
    estimator = _Estimator(network, task, samples)
    for (index, start), group in groupby(wanted, key=lambda choice: (choice.block.chain, choice.block.start)):
        choices = list(group)
        todo = [choice for choice in choices if table.get(choice.key) is None]
        for row in estimator.rows(network.chains[index], start, todo, _largest_fits(choices)):
            table.add(row)
            done += 1
            progress(done, len(wanted), row.choice)


class _Estimator:
    def __init__(self, network: Network, task: Task, samples: Samples) -> None:
        self.network, self.task = network, task
        network.module.eval()
        self.calibration = [inputs for inputs, _ in first(task.calibration_batches(), samples.calibration)]
        self.held_out = list(first(task.held_out_batches(), samples.held_out))
        self.before = self._score(network.module, [[inputs] for inputs, _ in self.held_out])
        if not (isfinite(self.before.loss) and isfinite(self.before.accuracy)):
            raise ModelError(
                f"{network.name} has a loss of {self.before.loss} and an accuracy of {self.before.accuracy} on the "
                f"held-out data of task {task.name!r}, before any change",
                hint="check that the weights are sound, and that task and network belong together",
            )

    def rows(
        self, chain: Chain, start: int, choices: list[Choice], largest: Mapping[Block, Geometry]
    ) -> Iterator[ImportanceRow]:
        """Measure the choices whose blocks start at one tensor.

        Args:
            chain: Theirs.
            start: The tensor.
            choices: What to measure.
            largest: Of each block that may be fitted, the largest geometry that it may have.
        """
        began = time.monotonic()
        fitted = {choice.block for choice in choices if choice.kind is Kind.FIT}
        equations = self._normal_equations(chain, start, {block: largest[block] for block in fitted})
        known, values = None, []
        for choice in choices:
            replacement, unexplained = self._replacement(chain, choice, equations)
            tail, names = self._tail(chain, choice, replacement)
            if names != known:  # seldom: choices come sorted by the end of their blocks
                known, values = names, self._known(names)
            after = self._score(tail, values)
            now = time.monotonic()
            yield self._row(choice, after, unexplained, now - began)
            began = time.monotonic()

    def _row(self, choice: Choice, after: Score, unexplained: float | None, seconds: float) -> ImportanceRow:
        loss = after.loss if after.loss < WORST_LOSS else WORST_LOSS  # NaN too
        accuracy = after.accuracy if isfinite(after.accuracy) else -WORST_LOSS
        return ImportanceRow(
            choice.key, self.before.loss, loss, self.before.accuracy, accuracy, unexplained, round(seconds, 3)
        )

    def _tail(
        self, chain: Chain, choice: Choice, replacement: nn.Module | None
    ) -> tuple[fx.GraphModule, tuple[str, ...]]:
        """The rest of the changed network behind the block's start, and the known values that it takes."""
        changed = rewrite(self.network, {choice: replacement}, share=True)
        known = []
        for node in self.network.module.graph.nodes:
            known.append(node.name)
            if node.name == chain.tensor(choice.block.start):
                break
        tail, names = onward(changed, known)
        return tail.eval(), names

    def _known(self, names: Sequence[str]) -> list[list[Tensor]]:
        head = up_to(self.network.module, names)
        with torch.inference_mode():
            return [list(head(inputs)) for inputs, _ in self.held_out]

    def _score(self, module: nn.Module, values: list[list[Tensor]]) -> Score:
        with torch.inference_mode():
            outputs = ((module(*given), target) for given, (_, target) in zip(values, self.held_out, strict=True))
            return score(outputs, self.task)

    def _replacement(
        self, chain: Chain, choice: Choice, equations: Mapping[Block, NormalEquations]
    ) -> tuple[nn.Module | None, float | None]:
        if choice.kind is Kind.IDENTITY:
            return None, None
        if choice.kind is Kind.MERGE:
            merged = to_module(folded(self.network.module, chain, choice.block, choice.kept))
            return normed(self.network.module, chain, choice, merged), None
        fitted = solved(equations[choice.block], self.network, choice)
        return to_module(fitted.convolution), fitted.unexplained

    def _normal_equations(
        self, chain: Chain, start: int, geometries: Mapping[Block, Geometry]
    ) -> dict[Block, NormalEquations]:
        """The normal equations of blocks that start at one tensor, from one pass over the data.

        What a block samples depends on nothing but the block, so that a resumed run measures what an uninterrupted one
        does.
        """
        if not geometries:
            return {}
        equations = {block: NormalEquations(geometry) for block, geometry in geometries.items()}
        shares = {block: samples_by_batch(geometry, self.calibration) for block, geometry in geometries.items()}
        names = {block: _target_names(chain, block) for block in geometries}
        read = chain.read_by(start + 1)
        wanted = list(dict.fromkeys([read, *(name for group in names.values() for name in group)]))
        head = up_to(self.network.module, wanted)
        with torch.inference_mode():
            for number, inputs in enumerate(self.calibration):
                values = dict(zip(wanted, head(inputs), strict=True))
                for block, equation in equations.items():
                    total, *added = (values[name] for name in names[block])
                    target, generator = total - sum(added), torch.Generator().manual_seed(number)
                    positions = sample_positions(target.shape, shares[block][number], generator)
                    equation.add(values[read], target, positions)
        return equations


def first(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The first so many samples of a data set, in its batches; no batch is empty."""
    for inputs, target in batches:
        if count > 0 and len(target):
            yield inputs[:count], target[:count]
        count -= len(target)
        if count <= 0:
            return


def _largest_fits(choices: Iterable[Choice]) -> dict[Block, Geometry]:
    """The largest kernel that each block may be fitted with; the others are parts of it."""
    largest: dict[Block, Geometry] = {}
    for choice in choices:
        if choice.kind is Kind.FIT and choice.geometry is not None:
            known = largest.get(choice.block)
            if known is None or choice.geometry.kernel > known.kernel:
                largest[choice.block] = choice.geometry
    return largest


def _target_names(chain: Chain, block: Block) -> list[str]:
    """Nodes of a block's result: the sum before the activation, and what skips from outside add to it."""
    added = [skip.operand for skip in outer_skips(chain, block)]
    return [chain.layers[block.end - 1].before_activation, *added]
