"""Being near to the original as a task: no labels, no loss of the user's.

The target of a batch is what the original makes of it, and the loss the sum of the distances of all outputs. The figure
that is told is agreement, never accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from math import prod

import torch
from torch import Tensor, fx

from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.device import device_of, move, moved
from trt_layermerge.network.inputs import Values, as_tuple, each, joined, samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.training.seeds import mixed_seed
from trt_layermerge.training.task import Batch
from trt_layermerge.training.unlabelled.distances import Distance, choose_distances
from trt_layermerge.training.unlabelled.inner_states import WEIGHT, inner_error
from trt_layermerge.training.unlabelled.metric_file import MetricFile
from trt_layermerge.training.unlabelled.samples import SampleSet
from trt_layermerge.training.unlabelled.split import Split, split

NUMBERS = 1 << 23
"""Of the inputs of one batch: larger samples come in smaller batches."""

LARGEST_BATCH, TRAINING_BATCH = 64, 32

SCALED_ON = 256
"""Calibration samples that distances are chosen and scaled on."""

READERS = 4
"""Threads that read samples ahead."""


@dataclass(frozen=True)
class Agreement:
    """Samples, and how a network's outputs for them are compared with those of the original.

    Before there is an original, its batches can be read; their targets are the samples' numbers.

    Attributes:
        name: For reports.
        samples: The data.
        parts: Which of them are for what.
        told: Names of outputs and of their distances, where the user says so.
        metric_file: The user's own agreement.
        batch_size: Of training; ``None`` takes a usual one.
        original: In evaluation mode, where it computes.
        distances: Of each of its outputs.
    """

    name: str
    samples: SampleSet
    parts: Split
    told: tuple[tuple[str, str], ...] = ()
    metric_file: MetricFile | None = None
    batch_size: int | None = None
    original: fx.GraphModule | None = None
    distances: Mapping[str, Distance] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, samples: SampleSet, told: tuple[tuple[str, str], ...], metric: MetricFile | None
    ) -> Agreement:
        """The task of some samples, split by their content.

        Raises:
            TaskError: They are too few.
        """
        return cls(name, samples, split(samples.digests, name), told, metric)

    def compared_with(self, network: Network, device: torch.device) -> Agreement:
        """The same with an original, and distances chosen for its outputs.

        Raises:
            ModelError: An output of it is not finite.
            UsageError: Its outputs cannot be compared as the user says.
        """
        original = fold_norms(network.module)  # which is nobody else's, and computes the same in less time
        move(original, device)
        task = replace(self, original=original)
        some = islice(task.calibration_batches(), -(-SCALED_ON // self._evaluated_at_once))
        outputs = joined(task._made_by_original(inputs) for inputs, _ in some)
        named = dict(zip(network.outputs, outputs, strict=True))
        task._require_rows_in_order(network)
        return replace(task, distances=choose_distances(named, dict(self.told)))

    def _require_rows_in_order(self, network: Network) -> None:
        """See that rows of one sample lie one after the other, where an output has several: an engine's batches do.

        Raises:
            ModelError: They do not.
        """
        inputs, _ = next(self.calibration_batches())
        alone, both = (as_tuple(self._made_by_original(tuple(part[:n] for part in as_tuple(inputs)))) for n in (1, 2))
        for name, one, two in zip(network.outputs, alone, both, strict=True):
            if len(two) == 2 * len(one) > 2 and (two[: len(one)] - one).abs().sum() > (two[::2] - one).abs().sum():
                raise ModelError(
                    f"output {name!r} of {network.name} has {len(one)} rows for each sample, which do not lie in a row",
                    hint="return it as [batch, rows, ...], or all rows of the first sample first",
                )

    def as_trained(self, batch_size: int | None, temperature: float) -> Agreement:
        """The same in batches of another size, its distances softened."""
        softened = {name: distance.softened(temperature) for name, distance in self.distances.items()}
        return replace(self, batch_size=batch_size, distances=softened)

    @property
    def metric_name(self) -> str:
        """Agreement, and by what."""
        if self.metric_file is not None:
            return f"agreement ({self.metric_file.file.name})"
        by = dict.fromkeys(distance.agrees_by for distance in self.distances.values())
        return f"agreement ({'mean of ' * (len(self.distances) > 1)}{', '.join(by)})"

    @property
    def data_hash(self) -> str:
        """Hash of the samples, of how they are prepared and split, and of what is compared how.

        By content alone: where they lie, what they are called and in which order is of no consequence.
        """
        metric = "" if self.metric_file is None else self.metric_file.digest
        state = blake2b(repr((self.samples.preprocessing, self.told, metric)).encode(), digest_size=8)
        for part in (self.parts.training, self.parts.held_out, self.parts.test):
            state.update(f"{len(part)}\n".encode())
            for index in part:
                state.update(self.samples.digests[index])
        return state.hexdigest()

    @property
    def in_words(self) -> tuple[str, ...]:
        """Samples, split, and distances: a line each."""
        compared = ", ".join(f"{name} by {distance}" for name, distance in self.distances.items())
        return self.samples.in_words, self.parts.in_words, f"compared: {compared}; reported: {self.metric_name}"

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only: a last odd one would make a noisy step."""
        return len(self.parts.training) // self._trained_at_once

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, shuffled by ``(seed, epoch)`` alone and not augmented."""
        shuffle = torch.Generator().manual_seed(mixed_seed(seed, epoch))
        order = torch.tensor(self.parts.training)[torch.randperm(len(self.parts.training), generator=shuffle)].tolist()
        size = self._trained_at_once
        return self._batches(order[first_step * size : self.steps_per_epoch * size], size)

    def calibration_batches(self) -> Iterator[Batch]:
        """What is trained on, in the order of content."""
        return self._batches(self.parts.training, self._evaluated_at_once)

    def held_out_batches(self) -> Iterator[Batch]:
        """What is held out, with what the original makes of it."""
        return map(self._with_targets, self._batches(self.parts.held_out, self._evaluated_at_once))

    def test_batches(self) -> Iterator[Batch]:
        """What is tested on, likewise."""
        return map(self._with_targets, self._batches(self.parts.test, self._evaluated_at_once))

    def loss(self, output: Values, target: Values) -> Tensor:
        """Sum of the distances of all outputs, mean over the batch, and of the inner states that lie behind them."""
        distances, both = self.distances.values(), list(zip(as_tuple(output), as_tuple(target), strict=True))
        own, inside = both[: len(distances)], both[len(distances) :]
        outputs = [distance(*pair).mean() for distance, pair in zip(distances, own, strict=True)]
        inner = [inner_error(*pair) for pair in inside]
        return torch.stack(outputs).sum() + (WEIGHT * torch.stack(inner).mean() if inner else 0.0)

    def metric(self, output: Values, target: Values) -> Tensor:
        """Agreement of each sample: what the user's file says, or the mean over all outputs."""
        if self.metric_file is not None:
            named = (dict(zip(self.distances, as_tuple(values), strict=True)) for values in (output, target))
            return self.metric_file(*named)
        return torch.stack(self.agreements(output, target)).mean(0)

    def agreements(self, output: Values, target: Values) -> list[Tensor]:
        """Agreement of each sample, ``[batch]``, for every output: the mean over its rows where it has several."""
        both = zip(self.distances.values(), as_tuple(output), as_tuple(target), strict=True)
        samples = samples_in(target)
        return [distance.agreement(one, other).view(samples, -1).mean(1) for distance, one, other in both]

    @cached_property
    def _fitting(self) -> int:
        """Samples whose inputs have ``NUMBERS`` numbers."""
        return max(1, NUMBERS // sum(prod(part.shape) for part in self.samples.read(self.parts.training[0])))

    @property
    def _evaluated_at_once(self) -> int:
        return min(LARGEST_BATCH, self._fitting)

    @property
    def _trained_at_once(self) -> int:
        usual = min(TRAINING_BATCH, max(4, self._fitting))
        return min(self.batch_size or usual, len(self.parts.training))

    def _batches(self, indices: Sequence[int], size: int) -> Iterator[Batch]:
        """In this order, read ahead by one batch; their targets are the samples' numbers."""
        with ThreadPoolExecutor(READERS) as pool:
            parts = [indices[begin : begin + size] for begin in range(0, len(indices), size)]
            ahead = [pool.map(self.samples.read, part) for part in parts[:1]]
            for number, part in enumerate(parts):
                ahead += [pool.map(self.samples.read, part) for part in parts[number + 1 : number + 2]]
                yield _stacked(list(ahead.pop(0)), self.name), torch.tensor(part)

    def _with_targets(self, batch: Batch) -> Batch:
        inputs, _ = batch
        return inputs, self._made_by_original(inputs)

    def _made_by_original(self, inputs: Values) -> Values:
        assert self.original is not None, "compared_with was not called"
        with torch.no_grad():
            outputs: Values = self.original(*moved(inputs, device_of(self.original)))
        return each(outputs, Tensor.cpu)


def _stacked(samples: Sequence[tuple[Tensor, ...]], name: str) -> tuple[Tensor, ...]:
    try:
        return tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
    except (RuntimeError, ValueError) as error:
        raise TaskError(f"task {name!r}: samples are not alike: {error}") from error
