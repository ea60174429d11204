"""Batches with what a teacher says of them; on several cores it says so while the student learns from the batch before.

A small network gains little by a second core for each operation; a teacher that computes beside its student does. What
it says is the same either way, and so is the step that a run stops at, whatever stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from trt_layermerge.network.inputs import Values, as_tuple, each, parts_of, samples_in
from trt_layermerge.training.task_check import Checked

Teach = Callable[[tuple[Tensor, ...]], Values | None]


@dataclass(frozen=True)
class Part:
    """A part of a batch, as many samples as run at once.

    Attributes:
        inputs: ``[samples, ...]`` each.
        target: Likewise.
        taught: Gives the teacher's outputs, or raises what it did; ``None`` is that of no teacher.
    """

    inputs: tuple[Tensor, ...]
    target: Values
    taught: Callable[[], Values | None]


class Teaching:
    """Makes batches into parts with a teacher's outputs.

    Args:
        teach: What the teacher makes of inputs. It draws nothing at random: that is the student's.
        parts: How many to make of a batch, at most.
        beside: A thread for the teacher; without one it is asked when its word is needed.
    """

    def __init__(self, teach: Teach, parts: int, beside: ThreadPoolExecutor | None = None) -> None:
        self._teach, self._number, self._beside = teach, parts, beside

    def begin(self, load: Callable[[], Checked]) -> Callable[[], list[Part]]:
        """Begin with a batch, where that can be done beside something else.

        Args:
            load: Reads it; called by the thread that calls this, or that calls what is returned, for it is code of
                the user's.

        Returns:
            Gives the batch, or raises what reading it did.
        """
        if self._beside is None:
            return lambda: self._parts(*load())
        batch = Future[list[Part]]()
        try:
            inputs, target = load()
            # Copies: a data set may hand out one buffer for all batches, and the one before is still in use.
            batch.set_result(self._parts(tuple(map(Tensor.clone, inputs)), each(target, Tensor.clone)))
        except Exception as error:  # told when it is this batch's turn, so that no step before it is lost
            batch.set_exception(error)
        return batch.result

    def _parts(self, inputs: tuple[Tensor, ...], target: Values) -> list[Part]:
        number = min(self._number, samples_in(inputs))
        given = map(as_tuple, parts_of(inputs, number))
        return [Part(some, aims, self._ask(some)) for some, aims in zip(given, parts_of(target, number), strict=True)]

    def _ask(self, inputs: tuple[Tensor, ...]) -> Callable[[], Values | None]:
        if self._beside is None:
            return partial(self._teach, inputs)
        return self._beside.submit(self._teach, inputs).result
