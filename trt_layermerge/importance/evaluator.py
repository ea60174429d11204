"""Evaluating changed networks on held-out data, the unchanged part before a change computed once.

Before a change is evaluated, what costs nothing is done about it: the statistics of batch norms behind it are
corrected, and the classifier is re-solved where there are images enough. What is left is what training would have to
do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, prod
from threading import Lock

import torch
from torch import Tensor, fx, nn

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.lowering import input_of
from trt_layermerge.blocks.sized_choices import NarrowedGroup
from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.fold import fold_in_place, fold_norms
from trt_layermerge.merging.heads import Head, heads_of, solve_head
from trt_layermerge.merging.narrowing import Kept, narrow
from trt_layermerge.merging.norms import correct_norms, joined_batches, norm_inputs
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.network.cut import onward, up_to
from trt_layermerge.network.device import device_of, moved
from trt_layermerge.network.inputs import Values, as_tuple, each, samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.resources.memory import MOST_ACTIVATIONS
from trt_layermerge.training.evaluate import Score, score
from trt_layermerge.training.task import Batch, Scoring
from trt_layermerge.training.task_check import checked_batches, odd_targets

Sample = tuple[tuple[Tensor, ...], Values]
"""A batch: what the network takes, input by input, and the targets."""

WORST_LOSS = 1e6
"""Stands for a loss that is not finite, and with a minus for such an accuracy: tables hold numbers only. See ``worst``
for losses that are of this size in themselves."""

IMAGES_PER_FEATURE = 3
"""Of classifiers: the fewest images that they are solved on."""


class Evaluator:
    """A network, a task's held-out data, and the loss of the one on the other.

    Args:
        network: The original, in evaluation mode.
        task: Loss and metric.
        held_out: The data to evaluate on.
        calibration: Data that statistics of batch norms are corrected on, and classifiers solved; without any, all
            stays as it is.
        memory: Bytes of activations that are kept between choices; where they would take more, they are computed
            every time.

    Raises:
        ModelError: The network has a loss or a metric that is not finite.
        TaskError: There is no data.
    """

    def __init__(
        self,
        network: Network,
        task: Scoring,
        held_out: Iterable[Sample],
        calibration: Iterable[Sample] = (),
        memory: int = MOST_ACTIVATIONS,
    ) -> None:
        self.network, self.task, self.held_out = network, task, list(held_out)
        device = device_of(network.module)
        given = (_laid_out(moved(inputs, device)) for inputs, _ in self.held_out)
        self.before = self.score(fold_norms(network.module).to(memory_format=torch.channels_last), given)
        require_finite(self.before, network, task, self.held_out)
        evaluated = [inputs for inputs, _ in self.held_out]
        batches = list(joined_batches(inputs for inputs, _ in calibration))
        self._norms = norm_inputs(network.module, (moved(inputs, device) for inputs in batches))
        self._evaluated, self._calibration = _Kept(network, evaluated), _Kept(network, batches)
        self.keep_within(memory)
        self._heads = {head: self._made_at(head) for head in self._solvable()}

    def keep_within(self, memory: int) -> None:
        """Keep so many bytes of activations at most from now on."""
        both = (self._evaluated, self._calibration)
        images = sum(one.images for one in both)
        for one in both:
            one.keep_within(memory * one.images // max(1, images))

    def changed(self, choice: Choice, replacement: nn.Module | None) -> Score:
        """Score of the network with one block replaced."""
        tail, names = self._tail(choice, replacement)
        return self._improved(copy.deepcopy(tail), names)  # its norms are the original's

    def narrowed(self, module: fx.GraphModule, kept: Kept) -> Score:
        """Score of a network without channels that nothing in it reads; it is changed."""
        placeholders = tuple(node.name for node in module.graph.nodes if node.op == "placeholder")
        return self._improved(module, placeholders, kept)

    def _improved(self, tail: fx.GraphModule, names: tuple[str, ...], kept: Kept | None = None) -> Score:
        """Score of the rest of a changed network, once what costs nothing is done about the change."""
        tail = tail.to(memory_format=torch.channels_last)
        if self._calibration.batches:
            correct_norms(tail, self._calibration.at(names), self._norms)
        if kept:  # not before: norms are corrected by what reached the original's, channel by channel
            tail = narrow(tail, kept)
        tail = fold_in_place(tail).to(memory_format=torch.channels_last)
        self._solve_heads(tail, names)
        return self.score(tail, self._evaluated.at(names))

    def _solve_heads(self, tail: fx.GraphModule, names: tuple[str, ...]) -> None:
        nodes = {node.name: node for node in tail.graph.nodes}
        for head, wanted in self._heads.items():
            source = nodes[head.name].all_input_nodes[0] if head.name in nodes else None
            if source is None or source.op == "placeholder":
                continue  # what is known has not changed, nor has what only reads that
            linear = tail.get_submodule(head.target)
            if isinstance(linear, nn.Linear):
                features = up_to(tail, [source.name])
                with torch.no_grad():
                    given = (features(*values)[0] for values in self._calibration.at(names))
                    solve_head(linear, zip(given, wanted, strict=True))

    def _solvable(self) -> Iterator[Head]:
        """The linear layers that there are images enough for."""
        images = sum(map(samples_in, self._calibration.batches))
        shapes = {node.name: node.meta.get("shape", ()) for node in self.network.module.graph.nodes}
        for head in heads_of(self.network.module):
            if len(shapes[head.name]) == 1 and images >= IMAGES_PER_FEATURE * (head.features + 1):
                yield head

    def _made_at(self, head: Head) -> list[Tensor]:
        """What the original makes of the calibration data there."""
        module, device = up_to(self.network.module, [head.name]), device_of(self.network.module)
        with torch.no_grad():
            return [module(*moved(inputs, device))[0] for inputs in self._calibration.batches]

    def score(self, module: nn.Module, values: Iterable[list[Tensor]]) -> Score:
        """Score of a module that takes ``values`` in place of the held-out inputs."""
        with torch.inference_mode():
            outputs = ((module(*given), target) for given, (_, target) in zip(values, self.held_out, strict=True))
            beside = ((output, _beside(output, target)) for output, target in outputs)
            return score(beside, self.task, "held_out_batches")

    def row(
        self, choice: Choice | NarrowedGroup, after: Score, unexplained: float | None, seconds: float
    ) -> ImportanceRow:
        """The table's row of a change."""
        return row(choice, self.before, after, unexplained, seconds)

    def _tail(self, choice: Choice, replacement: nn.Module | None) -> tuple[fx.GraphModule, tuple[str, ...]]:
        """The rest of the changed network behind the block's start, and the known values that it takes."""
        changed = rewrite(self.network, {choice: replacement}, share=True)
        start = input_of(self.network, choice)
        nodes = list(self.network.module.graph.nodes)
        before = nodes[: next(index for index, node in enumerate(nodes) if node.name == start) + 1]
        known = [node.name for node in nodes if node.op == "placeholder"]
        known += [node.name for node in before if "shape" in node.meta]  # numbers, such as the batch, are no tensors
        tail, names = onward(changed, known)
        return tail.eval(), names


def _beside(output: Values, target: Values) -> Values:
    """Targets on the outputs' device."""
    device = as_tuple(output)[0].device
    return each(target, lambda values: values.to(device))


def _laid_out(values: Iterable[Tensor]) -> list[Tensor]:
    """Images in NHWC layout; what is no image stays as it is."""
    return [v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for v in values]


class _Kept:
    """Values inside a network for some batches, kept between choices that ask for the same ones, in any thread."""

    def __init__(self, network: Network, batches: Sequence[tuple[Tensor, ...]]) -> None:
        self.network, self.batches, self.memory = network, batches, 0
        self.images = sum(map(samples_in, batches))
        self._names: tuple[str, ...] | None = None
        self._values: Iterable[list[Tensor]] = []
        self._bytes = 0  # of the values, whether they are kept or not
        self._lock = Lock()

    def keep_within(self, memory: int) -> None:
        """Keep so much at most; what is kept and is more goes."""
        with self._lock:
            if (self._bytes <= self.memory) != (self._bytes <= memory):
                self._names, self._values = None, []
            self.memory = memory

    def at(self, names: tuple[str, ...]) -> Iterable[list[Tensor]]:
        """The values of some nodes, batch by batch."""
        with self._lock:
            if names != self._names:  # seldom: choices come sorted by their blocks
                self._values = []  # before the next ones take their memory
                known = _Known(self.network, names, self.batches)
                self._names, self._bytes = names, known.bytes
                self._values = list(known) if known.bytes <= self.memory else known
            return self._values


@dataclass(frozen=True)
class _Known:
    """Values inside the network for every batch, computed whenever they are asked for."""

    network: Network
    names: tuple[str, ...]
    batches: Sequence[tuple[Tensor, ...]]

    @property
    def bytes(self) -> int:
        """Memory that all of them would take, in float32."""
        nodes = {node.name: node for node in self.network.module.graph.nodes}
        sizes: int = sum(prod(nodes[name].meta["shape"]) for name in self.names)
        return 4 * sizes * sum(samples_in(inputs) for inputs in self.batches)

    def __iter__(self) -> Iterator[list[Tensor]]:
        head, device = up_to(self.network.module, self.names), device_of(self.network.module)
        with torch.inference_mode():
            for inputs in self.batches:
                yield _laid_out(head(*moved(inputs, device)))


def require_finite(before: Score, network: Network, task: Scoring, held_out: Iterable[Sample]) -> None:
    """See that a network's score is a number before any change.

    Args:
        before: The score.
        network: Whose it is.
        task: Whose loss and metric it is of.
        held_out: The data.

    Raises:
        TaskError: It is not, and targets are not finite; the message says of which batch.
        ModelError: It is not, and they are.
    """
    if not (isfinite(before.loss) and isfinite(before.accuracy)):
        for number, (_, target) in enumerate(held_out, 1):
            if odd := odd_targets(target):
                raise TaskError(
                    f"task {task.name!r}: batch {number} of held_out_batches yields {odd}, and the loss of "
                    f"{network.name} is {before.loss}, its metric {before.accuracy}",
                    hint="leave such samples out, or let loss and metric pass over such targets",
                )
        raise ModelError(
            f"{network.name} has a loss of {before.loss} and a metric of {before.accuracy} on the held-out data of "
            f"task {task.name!r}, before any change",
            hint="check that the weights are sound, and that task and network belong together",
        )


def row(
    choice: Choice | NarrowedGroup, before: Score, after: Score, unexplained: float | None, seconds: float
) -> ImportanceRow:
    """The table's row of a change, from the scores before and after."""
    loss = within(after.loss, before.loss)
    accuracy = after.accuracy if isfinite(after.accuracy) else -worst(before.accuracy)
    return ImportanceRow(choice.key, before.loss, loss, before.accuracy, accuracy, unexplained, round(seconds, 3))


def worst(before: float) -> float:
    """What stands for a loss that is not finite: more than the original's, however large that is."""
    return max(WORST_LOSS, 1000 * abs(before))


def within(loss: float, before: float) -> float:
    """A loss, or the worst there is in its place."""
    return loss if isfinite(loss) and loss < worst(before) else worst(before)


def first(batches: Iterable[Batch], count: int) -> Iterator[Sample]:
    """The first so many samples of a data set, in its batches; no batch is empty.

    Raises:
        TaskError: What it yields is no batch, or it raises.
    """
    for inputs, target in checked_batches(None, "one of its data sets", lambda: batches):
        samples = samples_in(inputs)
        if count > 0 and samples:
            few = min(count, samples)
            yield tuple(part[:few] for part in inputs), each(target, partial(_rows, few, samples))
        count -= samples
        if count <= 0:
            return


def _rows(few: int, samples: int, values: Tensor) -> Tensor:
    """Those of the first few samples, each of which may have several: frames, or windows."""
    return values[: few * len(values) // samples]
