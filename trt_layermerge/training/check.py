"""Early questions to a user's task, so that a wrong one is told in words and before hours of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trt_layermerge.errors import LayerMergeError, TaskError
from trt_layermerge.network.inputs import Input, as_inputs
from trt_layermerge.training.task import Task


@contextmanager
def asking(task: Task, what: str) -> Iterator[None]:
    """Turn what the user's code raises into a ``TaskError`` that names the task and ``what`` it was asked for."""
    try:
        yield
    except LayerMergeError:
        raise
    except Exception as error:
        raise TaskError(f"task {task.name!r}: {what} raised {type(error).__name__}: {error}") from error


def require_batch(value: object, task: Task, what: str) -> tuple[tuple[Tensor, ...], Tensor]:
    """The value as inputs, one for each of the network's, and targets of the same number of samples.

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
                f"task {task.name!r}: {what} yields inputs {list(values.shape)} with targets {list(target.shape)}; "
                "the first dimension of both is the batch"
            )
    return given, target


def _no_batch(value: object, task: Task, what: str) -> TaskError:
    return TaskError(
        f"task {task.name!r}: {what} yields {_described(value)}",
        hint="yield a tuple of two: inputs [batch, ...], a tensor or a tuple of them, and targets [batch, ...]",
    )


def sample_shape(task: Task) -> tuple[int, ...]:
    """Shape of the first input, without the batch, as the first calibration batch has it.

    Raises:
        TaskError: There is no batch, or it is not a pair of tensors.
    """
    return tuple(_first_inputs(task)[0].shape[1:])


def _first_inputs(task: Task) -> tuple[Tensor, ...]:
    what = "calibration_batches"
    with asking(task, what):
        first = next(iter(task.calibration_batches()), None)
    if first is None:
        raise TaskError(f"task {task.name!r}: {what} yields nothing")
    return require_batch(first, task, what)[0]


def check_task(task: Task, given: Sequence[int] | Sequence[Input]) -> None:
    """See that the inputs of the first calibration batch fit the network.

    Args:
        task: What is asked.
        given: The network's inputs; a shape alone, without the batch, means one of real numbers.

    Raises:
        TaskError: There is no batch, it is not a pair of tensors, or its inputs have another number or shape or other
            kinds of numbers than the network's.
    """
    wanted, found = as_inputs(given), _first_inputs(task)
    if len(found) != len(wanted):
        names = ", ".join(item.name for item in wanted)
        raise TaskError(
            f"task {task.name!r}: calibration_batches yields batches of {len(found)} input{'s' * (len(found) > 1)}; "
            f"the network takes {len(wanted)}: {names}",
            hint="yield ((first, second, ...), targets), with the inputs in the order of INPUTS beside the factory",
        )
    for item, values in zip(wanted, found, strict=True):
        which = "inputs" if len(wanted) == 1 else f"{item.name!r}"
        _check_input(item, values, f"task {task.name!r}: calibration_batches yields {which} of")


def _check_input(item: Input, values: Tensor, says: str) -> None:
    if tuple(values.shape[1:]) != item.shape:
        raise TaskError(
            f"{says} shape {list(values.shape)}; the network takes [{', '.join(map(str, ('batch', *item.shape)))}]",
            hint="resize the task's images, or give the network the task's input shape",
        )
    if item.below is None and not values.is_floating_point():
        raise TaskError(
            f"{says} {values.dtype}; a network takes real numbers",
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


def _described(value: object) -> str:
    """What a thing is, in a few words: its type, and the types of its parts."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"
