"""Early questions to a user's task, so that a wrong one is told in words and before hours of work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from trt_layermerge.errors import LayerMergeError, TaskError
from trt_layermerge.training.task import Task, Values


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


def one_input(values: Values) -> Tensor:
    """The values of a network that has one input.

    Raises:
        TaskError: They are for a network with several.
    """
    if isinstance(values, Tensor):
        return values
    if len(values) != 1:
        raise TaskError(f"the batches of the task hold {len(values)} inputs; this works on networks with one")
    return values[0]


def check_task(task: Task, input_shape: Sequence[int]) -> None:
    """See that the first input of the first calibration batch fits the network.

    Args:
        task: What is asked.
        input_shape: What the network takes, without the batch: ``[channels, height, width]``.

    Raises:
        TaskError: There is no batch, it is not a pair of tensors, or its inputs have another shape or no real numbers.
    """
    what, inputs = "calibration_batches", _first_inputs(task)[0]
    if list(inputs.shape[1:]) != list(input_shape):
        raise TaskError(
            f"task {task.name!r}: {what} yields inputs of shape {list(inputs.shape)}; "
            f"the network takes [batch, {', '.join(map(str, input_shape))}]",
            hint="resize the task's images, or give the network the task's input shape",
        )
    if not inputs.is_floating_point():
        raise TaskError(
            f"task {task.name!r}: {what} yields inputs of {inputs.dtype}; a network takes real numbers",
            hint="convert and normalise: images.float() / 255",
        )


def _described(value: object) -> str:
    """What a thing is, in a few words: its type, and the types of its parts."""
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of ({', '.join(type(part).__name__ for part in value)})"
    return f"a {type(value).__name__}"
