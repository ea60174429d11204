"""Early questions to a user's task, so that a wrong one is told in words and before hours of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from trt_layermerge.errors import LayerMergeError, TaskError
from trt_layermerge.network.inputs import Input, as_inputs
from trt_layermerge.training.task import Task

DataSet = Literal["training_batches", "calibration_batches", "held_out_batches", "test_batches"]


@contextmanager
def asking(task: Task | None, what: str) -> Iterator[None]:
    """Turn what the user's code raises into a ``TaskError`` that names the task and ``what`` it was asked for."""
    try:
        yield
    except LayerMergeError:
        raise
    except Exception as error:
        raise TaskError(f"{_named(task)}: {what} raised {type(error).__name__}: {error}") from error


def _named(task: Task | None) -> str:
    return "the task" if task is None else f"task {task.name!r}"


def require_batch(value: object, task: Task | None, what: str) -> tuple[tuple[Tensor, ...], Tensor]:
    """The value as inputs, one for each of the network's, and targets of the same number of samples.

    Args:
        value: What was yielded.
        task: Whose it is, where that is known.
        what: What yielded it, in words.

    Raises:
        TaskError: It is something else; the message says what.
    """
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise _no_batch(value, task, what)
    inputs, target = value
    given = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not given or not all(isinstance(part, Tensor) for part in (*given, target)):
        raise _no_batch(value, task, what)
    for values in given:
        if values.shape[:1] != target.shape[:1]:
            raise TaskError(
                f"{_named(task)}: {what} yields inputs {list(values.shape)} with targets {list(target.shape)}; "
                "the first dimension of both is the batch"
            )
    return given, target


def require_steps(task: Task) -> int:
    """The steps of an epoch.

    Raises:
        TaskError: There are none, or it is no number of them.
    """
    steps = task.steps_per_epoch
    if not isinstance(steps, int):
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
        hint="yield a tuple of two: inputs [batch, ...], a tensor or a tuple of them, and targets [batch, ...]",
    )


def sample_shape(task: Task) -> tuple[int, ...]:
    """Shape of the first input, without the batch, as the first calibration batch has it.

    Raises:
        TaskError: There is no batch, or it is not a pair of tensors.
    """
    return tuple(first_batch(task, "calibration_batches")[0][0].shape[1:])


def first_batch(task: Task, data: DataSet) -> tuple[tuple[Tensor, ...], Tensor]:
    """The first batch of one of a task's data sets.

    Raises:
        TaskError: There is none, or it is not a pair of tensors.
    """
    with asking(task, data):
        batches = task.training_batches(seed=0, epoch=0) if data == "training_batches" else getattr(task, data)()
        first = next(iter(batches), None)
    if first is None:
        raise TaskError(f"task {task.name!r}: {data} yields nothing")
    return require_batch(first, task, data)


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
            kinds of numbers than the network's.
    """
    for data in data_sets:
        _check_inputs(task, as_inputs(given), data)


def _check_inputs(task: Task, wanted: Sequence[Input], data: DataSet) -> None:
    found, _ = first_batch(task, data)
    if len(found) != len(wanted):
        names = ", ".join(item.name for item in wanted)
        raise TaskError(
            f"task {task.name!r}: {data} yields batches of {len(found)} input{'s' * (len(found) > 1)}; "
            f"the network takes {len(wanted)}: {names}",
            hint="yield ((first, second, ...), targets), with the inputs in the order of INPUTS beside the factory",
        )
    for item, values in zip(wanted, found, strict=True):
        which = "inputs" if len(wanted) == 1 else f"{item.name!r}"
        _check_input(item, values, f"task {task.name!r}: {data} yields {which} of")


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
