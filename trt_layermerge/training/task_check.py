"""Early questions to a user's task, so that a wrong one is told in words and before hours of work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, product
from typing import Literal

import torch
from torch import Tensor

from trt_layermerge.errors import TaskError
from trt_layermerge.network.inputs import Input, Values, as_inputs, as_tuple, each
from trt_layermerge.network.plain import oddity
from trt_layermerge.training.task import Scoring, Task, Unlabelled
from trt_layermerge.usercode import user_code

Checked = tuple[tuple[Tensor, ...], Values]
"""A batch that went through the gate: one tensor for each of the network's inputs, and the targets."""

NO_LABEL = -100
"""What ``torch.nn.functional.cross_entropy`` passes over."""

_LABELS = (torch.int64, torch.uint8)
"""What ``cross_entropy`` takes for numbers of classes."""

DataSet = Literal["training_batches", "calibration_batches", "held_out_batches", "test_batches"]


def asking(task: Scoring | None, what: str) -> user_code:
    """The gate to a task's code, which names the task and ``what`` it is asked for."""
    return user_code(f"{_named(task)}: {what}", TaskError)


def _named(task: Scoring | None) -> str:
    return "the task" if task is None else f"task {task.name!r}"


def require_batch(value: object, task: Task | None, what: str, wanted: Sequence[Input] = ()) -> Checked:
    """The value as inputs, one for each of the network's, and targets of the same number of samples.

    This is the gate for batches: every one goes through it, not only the first.

    Args:
        value: What was yielded.
        task: Whose it is, where that is known.
        what: What yielded it, in words.
        wanted: The network's inputs, where they are known.

    Raises:
        TaskError: It is something else; the message says what came and what was expected.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise _no_batch(value, task, what)
    inputs, target = value
    given, targets = (tuple(part) if isinstance(part, (tuple, list)) else (part,) for part in (inputs, target))
    if not given or not targets or not all(isinstance(part, Tensor) for part in (*given, *targets)):
        raise _no_batch(value, task, what)
    says = f"{_named(task)}: {what} yields"
    for role, values in (*(("inputs", values) for values in given), *(("targets", values) for values in targets)):
        if odd := oddity(values):
            raise TaskError(
                f"{says} {role} that are {odd}; they must be plain tensors on the CPU",
                hint="convert them where the batch is made, with .to_dense(), .cpu() or the like",
            )
    for values, aim in product(given, targets):
        if not (values.ndim and aim.ndim and _of_samples(len(aim), len(values), task)):
            raise TaskError(
                f"{says} inputs {list(values.shape)} with targets {list(aim.shape)}; "
                "the first dimension of both is the batch"
            )
    if wanted:
        _require_inputs(given, wanted, says)
    return tuple(map(_ordinary, given)), _ordinary(target) if isinstance(target, Tensor) else each(targets, _ordinary)


def odd_targets(target: Values) -> str:
    """How many numbers of a batch's targets are not finite, in words; empty where all are.

    It is no fault in itself, for a loss may pass over what has no label; it is asked for where a loss is no number.
    """
    odd = [(values, int((~values.isfinite()).sum())) for values in as_tuple(target)]
    return ", ".join(f"targets {list(v.shape)} of which {count} are nan or infinite" for v, count in odd if count)


def require_labels(target: Values, scores: tuple[int, ...], task: Scoring, which: str, *, numbered: bool) -> None:
    """See that labels are among the classes of a network, or -100, which stands for none.

    Args:
        target: The labels: of each score but along the first dimension, which is that of classes; or shares of classes.
        scores: Shape of what the network makes of a sample.
        task: Whose labels they are.
        which: What yields them.
        numbered: Whether shares of classes do not do.

    Raises:
        TaskError: They are not; the message says of which batch, and what they are.
    """
    says = f"{_named(task)}: {which} yields"
    if not isinstance(target, Tensor):
        raise TaskError(
            f"{says} {len(target)} targets; labels are one tensor", hint="write a loss and a metric for more"
        )
    shares = target.is_floating_point() and not numbered
    if target.shape[1:] != (scores if shares else scores[1:]) or not (shares or target.dtype in _LABELS):
        wanted = ", ".join(map(str, ("batch", *scores[1:])))
        raise TaskError(
            f"{says} labels {list(target.shape)} of {target.dtype}; they must be [{wanted}] of torch.int64",
            hint="convert with .long(), and drop what is too much with .squeeze(1), or for one-hot labels .argmax(1); "
            "labels of other kinds need a loss and a metric of your own",
        )
    if shares:
        return
    told = target[target != NO_LABEL]
    if not len(told):
        raise TaskError(
            f"{says} no labels: all are {NO_LABEL}, which stands for none",
            hint="leave such batches out; the mean loss of none is no number",
        )
    if not _within(told, scores[0]):
        raise TaskError(
            f"{says} labels from {target.min()} to {target.max()}; the network has {scores[0]} classes, 0 to "
            f"{scores[0] - 1}",
            hint="number the classes as the network's outputs are, or take a network that has them all",
        )


def _of_samples(rows: int, samples: int, task: Task | None) -> bool:
    """Whether a target is of so many samples; without labels, each may have several rows, as of frames or windows."""
    several = task is None or isinstance(task, Unlabelled)
    return rows == samples or (several and samples > 0 and rows > 0 and rows % samples == 0)


def _ordinary(values: Tensor) -> Tensor:
    """The same values, where a network may be trained on them: neither of inference mode nor of another graph."""
    if values.is_inference():
        return values.clone()
    return values.detach() if values.requires_grad else values


def require_steps(task: Task) -> int:
    """The steps of an epoch.

    Raises:
        TaskError: There are none, or it is no number of them.
    """
    with asking(task, "steps_per_epoch"):
        steps = task.steps_per_epoch
    if not isinstance(steps, int) or isinstance(steps, bool):
        raise TaskError(f"task {task.name!r}: steps_per_epoch is {steps!r}; it must be a whole number")
    if steps < 1:
        raise TaskError(
            f"task {task.name!r}: an epoch has {steps} steps; there is nothing to train on",
            hint="make its batches smaller, or give it more training data",
        )
    return steps


def _no_batch(value: object, task: Task | None, what: str) -> TaskError:
    return TaskError(
        f"{_named(task)}: {what} yields {described_value(value)}",
        hint="yield a tuple of two, inputs and targets: each a tensor [batch, ...] or a tuple of them",
    )


def sample_shape(task: Task) -> tuple[int, ...]:
    """Shape of the first input, without the batch, as the first calibration batch has it.

    Raises:
        TaskError: There is no batch, or it is not a pair of tensors.
    """
    return tuple(first_batch(task, "calibration_batches")[0][0].shape[1:])


def first_batch(task: Task, data: DataSet, wanted: Sequence[Input] = ()) -> Checked:
    """The first batch of one of a task's data sets, for a network that takes the wanted inputs if there are any.

    Raises:
        TaskError: There is none, or it is not a pair of tensors.
    """
    for batch in checked_batches(task, data, lambda: _begun(task, data), wanted):
        return batch
    raise TaskError(f"task {task.name!r}: {data} yields nothing")


def checked_batches(
    task: Task | None, data: str, begin: Callable[[], Iterable[object]], wanted: Sequence[Input] = (), skipped: int = 0
) -> Iterator[Checked]:
    """The batches of a data set, each of them through both gates.

    Args:
        task: Whose they are, where that is known.
        data: What the data set is called.
        begin: Begins to read it.
        wanted: The network's inputs, where they are known.
        skipped: Batches before the first one, in the message's count.

    Raises:
        TaskError: The task raises, or what it yields is no batch for the network; the message numbers the batch.
    """
    with asking(task, data):
        batches = iter(begin())
    for number in count(skipped + 1):
        with asking(task, f"batch {number} of {data}"):
            batch = next(batches, _END)
        if batch is _END:
            return
        yield require_batch(batch, task, data if number == 1 else f"batch {number} of {data}", wanted)


_END = object()


def _begun(task: Task, data: DataSet) -> Iterable[object]:
    return task.training_batches(seed=0, epoch=0) if data == "training_batches" else getattr(task, data)()


def check_task(
    task: Task, given: Sequence[int] | Sequence[Input], data_sets: Sequence[DataSet] = ("calibration_batches",)
) -> None:
    """See that the inputs of the first batch of data sets fit the network.

    Args:
        task: What is asked.
        given: The network's inputs; a shape alone, without the batch, means one of real numbers.
        data_sets: Which ones.

    Raises:
        TaskError: There is no batch, it is not a pair of tensors, or its inputs have another number or shape or other
            kinds of numbers than the network's, or are not finite.
    """
    for data in data_sets:
        first_batch(task, data, as_inputs(given))


def _require_inputs(found: Sequence[Tensor], wanted: Sequence[Input], says: str) -> None:
    if len(found) != len(wanted):
        names = ", ".join(item.name for item in wanted)
        raise TaskError(
            f"{says} batches of {len(found)} input{'s' * (len(found) > 1)}; the network takes {len(wanted)}: {names}",
            hint="yield ((first, second, ...), targets), with the inputs in the order of INPUTS beside the factory",
        )
    if not len(found[0]):
        raise TaskError(f"{says} inputs {list(found[0].shape)}, of no samples", hint="leave such a batch out")
    for item, values in zip(wanted, found, strict=True):
        which = "inputs" if len(wanted) == 1 else f"{item.name!r}"
        _check_input(item, values, f"{says} {which} of")


def _check_input(item: Input, values: Tensor, says: str) -> None:
    if tuple(values.shape[1:]) != item.shape:
        raise TaskError(
            f"{says} shape {list(values.shape)}; the network takes [{', '.join(map(str, ('batch', *item.shape)))}]",
            hint="resize the task's images, or give the network the task's input shape",
        )
    if item.below is None and values.dtype != torch.float32:
        raise TaskError(
            f"{says} {values.dtype}; a network takes real numbers, torch.float32",
            hint="convert with .float(), and normalise images: images.float() / 255",
        )
    if item.below is None and not bool(values.isfinite().all()):
        raise TaskError(
            f"{says} what is not finite: nan or infinity",
            hint="leave such samples out, or see what makes them: a division by a deviation of zero, or a damaged file",
        )
    if item.below is not None and (values.dtype != torch.int64 or not _within(values, item.below)):
        span = f" from {values.min()} to {values.max()}" if len(values) else ""
        raise TaskError(
            f"{says} {values.dtype}{span}; the network takes torch.int64 from 0 to {item.below - 1}",
            hint="convert with .long(), and let INPUTS beside the factory say below which number they are",
        )


def _within(values: Tensor, below: int) -> bool:
    """Whether all of some whole numbers are from 0 up to another, and without it."""
    return bool(((values >= 0) & (values < below)).all())


def described_value(value: object) -> str:
    """What a thing is, in a few words: its type, and the types of its parts."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"
