"""What the compressor must know about the user's data: batches of it, a loss, and a metric.

A user writes a small Python file with a function ``task()`` that returns a :class:`Task`; :class:`Classification` is
the ready-made one. Nothing here trains or evaluates: that is ``loop.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from trt_layermerge.errors import TaskError
from trt_layermerge.network.inputs import Values as Values
from trt_layermerge.training.seeds import mixed_seed

if TYPE_CHECKING:
    from trt_layermerge.training.unlabelled.distances import Distance

Batch = tuple[Values, Values]
"""Inputs and their targets, ``[batch, ...]`` each."""


Labelled = tuple[Tensor, Tensor]
"""Images and their labels."""


class Scoring(Protocol):
    """How good outputs are.

    ``loss`` and ``metric`` get outputs and targets on one device, which may be a GPU: one tensor, or of a network that
    returns several a tuple, in the order of its outputs.
    """

    @property
    def name(self) -> str:
        """A short name for reports."""
        ...

    def loss(self, output: Any, target: Any) -> Tensor:
        """Mean loss of a batch, a scalar."""
        ...

    def metric(self, output: Any, target: Any) -> Tensor:
        """Quality of every sample, ``[batch]``, higher is better; its mean over a data set is the accuracy."""
        ...


class Task(Scoring, Protocol):
    """Data, loss and metric of one job.

    The training data is split three ways, once and for all seeds: what fine-tuning sees, a *calibration* part of that
    which fits and importance may look at, and a *held-out* part that only importance is evaluated on. The test data is
    for the final figure and for nothing else. Batches are made on the CPU.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that ``training_batches`` yields for one epoch from its first step."""
        ...

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, the same for the same arguments; ``first_step`` skips what was seen before."""
        ...

    def calibration_batches(self) -> Iterator[Batch]:
        """Unaugmented training data, always in the same order."""
        ...

    def held_out_batches(self) -> Iterator[Batch]:
        """Unaugmented data that neither fine-tuning nor calibration sees, always in the same order."""
        ...

    def test_batches(self) -> Iterator[Batch]:
        """The test data, always in the same order."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A task of one output and one label a sample that can tell its loss for labels of which only chances are known."""

    def expected_loss(self, output: Tensor, original: Tensor) -> Tensor:
        """Mean of ``loss`` over the labels that an original's output thinks likely, as likely as it thinks them."""
        ...


@runtime_checkable
class Regression(Protocol):
    """A task whose outputs are no logits: there is nothing to distil, and its metric is no share of right answers."""

    @property
    def metric_name(self) -> str:
        """What the mean of the metric is called where people read it."""
        ...


def metric_name(task: Task) -> str | None:
    """What the mean of a task's metric is called; ``None`` where it is the accuracy."""
    return task.metric_name if isinstance(task, Regression) else None


@runtime_checkable
class Unlabelled(Protocol):
    """A task without labels: its targets are what the original makes of the same inputs, and its loss is 0 for them.

    Held-out and test batches have them. Training and calibration batches have none: who trains gives the original as
    the teacher, whose outputs take their place.
    """

    @property
    def distances(self) -> Mapping[str, Distance]:
        """Of each output of the network, in their order."""
        ...


@runtime_checkable
class Shareable(Protocol):
    """A task that can load a part of every training batch, for one of several processes."""

    def shared(self, rank: int, size: int) -> Task:
        """The same task, whose training batches hold every ``size``-th sample from ``rank`` on."""
        ...


@dataclass(frozen=True)
class Classification:
    """Image classification over two map-style data sets of ``(image, label)``.

    Args:
        name: A short name for reports.
        train: Training data without augmentation; a part of it is held out.
        test: Test data, read for the final figure only.
        batch_size: Images in one batch.
        held_out: Number of training images that are set aside for evaluating importance.
        calibration: Number of the other training images that fits may use.
        transform: Makes a tensor of an image as the data sets have it; None where that is one already.
        random_transform: The same for training, random by torch's global generator, which is seeded for each image so
            that a resumed run sees what an uninterrupted one does; None takes ``transform``.
        augment: Changes a batch of training images, using the generator for all its randomness, likewise.
        label_smoothing: As in ``torch.nn.functional.cross_entropy``.
        workers: Processes that load data; 0 loads in this one.
        share: This process and the number of processes that share every training batch.

    Raises:
        TaskError: Nothing is left to train on, or a batch would be empty.
    """

    name: str
    train: Dataset[Any]
    test: Dataset[Any]
    batch_size: int = 128
    held_out: int = 5000
    calibration: int = 2048
    transform: Callable[[Any], Tensor] | None = None
    random_transform: Callable[[Any], Tensor] | None = None
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    label_smoothing: float = 0.0
    workers: int = 0
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        """Refuse a split that leaves nothing to train on."""
        images = _length(self.train)
        if not 0 <= self.held_out < images:
            raise TaskError(
                f"task {self.name!r}: {self.held_out} of {images} training images cannot be held out",
                hint="lower held_out; a tenth of the training images is a good start",
            )
        if self.calibration < 0:
            raise TaskError(f"task {self.name!r}: calibration is {self.calibration}; it must be at least 0")
        if self.batch_size < 1:
            raise TaskError(f"task {self.name!r}: batch_size is {self.batch_size}; it must be at least 1")

    @cached_property
    def _split(self) -> tuple[list[int], list[int]]:
        """Indices of what is trained on and what is held out: one fixed shuffle, the same for every run."""
        order = torch.randperm(_length(self.train), generator=torch.Generator().manual_seed(0)).tolist()
        return order[self.held_out :], order[: self.held_out]

    def _batches(self, data: Dataset[Any], indices: Sequence[int]) -> Iterator[Labelled]:
        """Unaugmented, in this order."""
        batches = (indices[i : i + self.batch_size] for i in range(0, len(indices), self.batch_size))
        return self._loaded(data, self.transform, [[(index, None) for index in batch] for batch in batches])

    def _loaded(
        self, data: Dataset[Any], transform: Callable[[Any], Tensor] | None, batches: list[list[_Key]]
    ) -> Iterator[Labelled]:
        yield from DataLoader(
            _Transformed(data, transform),
            batch_sampler=cast(Any, batches),  # torch would have it hold plain indices
            num_workers=self.workers,
            generator=torch.Generator(),  # its own, or starting a loader would move the global one
        )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches only: a last odd one would make a noisy step."""
        return len(self._split[0]) // self.batch_size

    def training_batches(self, *, seed: int, epoch: int, first_step: int = 0) -> Iterator[Labelled]:
        """The batches of one epoch, shuffled and augmented by ``(seed, epoch, step)`` alone."""
        indices = torch.tensor(self._split[0])
        shuffle = torch.Generator().manual_seed(mixed_seed(seed, epoch, 0))
        indices = indices[torch.randperm(len(indices), generator=shuffle)]
        order, (rank, size) = indices.tolist(), self.share
        batches: list[list[_Key]] = [
            [(index, mixed_seed(seed, epoch, step + 1, index)) for index in order[self._of_step(step)][rank::size]]
            for step in range(first_step, self.steps_per_epoch)
        ]
        loaded = self._loaded(self.train, self.random_transform or self.transform, batches)
        for step, (images, labels) in enumerate(loaded, first_step):
            if self.augment is not None:
                which = (rank,) if size > 1 else ()
                images = self.augment(images, torch.Generator().manual_seed(mixed_seed(seed, epoch, step + 1, *which)))
            yield images, labels

    def _of_step(self, step: int) -> slice:
        return slice(step * self.batch_size, (step + 1) * self.batch_size)

    def shared(self, rank: int, size: int) -> Classification:
        """The same task, whose training batches hold every ``size``-th image from ``rank`` on."""
        return replace(self, share=(rank, size))

    def calibration_batches(self) -> Iterator[Labelled]:
        """The first ``calibration`` images that are not held out."""
        return self._batches(self.train, self._split[0][: self.calibration])

    def held_out_batches(self) -> Iterator[Labelled]:
        """The held-out images."""
        return self._batches(self.train, self._split[1])

    def test_batches(self) -> Iterator[Labelled]:
        """The test images."""
        return self._batches(self.test, range(_length(self.test)))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of logits ``[batch, classes]``."""
        return functional.cross_entropy(output, target, label_smoothing=self.label_smoothing)

    def expected_loss(self, output: Tensor, original: Tensor) -> Tensor:
        """The same for labels that are as likely as the original's logits have them; who changes one changes both."""
        return functional.cross_entropy(output, original.softmax(1), label_smoothing=self.label_smoothing)

    def metric(self, output: Tensor, target: Tensor) -> Tensor:
        """1 where the largest logit is the label's, else 0."""
        return (output.argmax(1) == target).float()


_Key = tuple[int, int | None]
"""Index of a sample, and the seed of what is random in its transform, if anything is."""


class _Transformed(Dataset[Any]):
    """Samples by their keys, transformed."""

    def __init__(self, data: Dataset[Any], transform: Callable[[Any], Tensor] | None) -> None:
        self.data, self.transform = data, transform

    def __getitem__(self, key: _Key) -> Any:
        index, seed = key
        if self.transform is None:
            return self.data[index]
        image, label = self.data[index]
        if seed is None:
            return self.transform(image), label
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.transform(image), label


def _length(data: Dataset[Any]) -> int:
    """Number of samples; torch leaves ``__len__`` out of ``Dataset``, though every map-style one has it."""
    return len(cast(Sized, data))
