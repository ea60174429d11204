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

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Part:
    """A part of a batch, as many samples as run at once.

    Attributes:
        inputs: ``[samples, ...]`` each.
        target: ``[samples, ...]``.
        taught: Gives the teacher's outputs, or raises what it did; ``None`` is that of no teacher.
    """

    inputs: Inputs
    target: Tensor
    taught: Callable[[], Tensor | None]


class Teaching:
    """Makes batches into parts with a teacher's outputs.

    Args:
        teach: What the teacher makes of inputs. It draws nothing at random: that is the student's.
        parts: How many to make of a batch, at most.
        beside: A thread for the teacher; without one it is asked when its word is needed.
    """

    def __init__(
        self, teach: Callable[[Inputs], Tensor | None], parts: int, beside: ThreadPoolExecutor | None = None
    ) -> None:
        self._teach, self._number, self._beside = teach, parts, beside

    def begin(self, load: Callable[[], tuple[Inputs, Tensor]]) -> Callable[[], list[Part]]:
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
            batch.set_result(self._parts(tuple(values.clone() for values in inputs), target.clone()))
        except Exception as error:  # told when it is this batch's turn, so that no step before it is lost
            batch.set_exception(error)
        return batch.result

    def _parts(self, inputs: Inputs, target: Tensor) -> list[Part]:
        number = min(self._number, len(target))
        split = [values.tensor_split(number) for values in (*inputs, target)]
        return [Part(tuple(given), labels, self._ask(tuple(given))) for *given, labels in zip(*split, strict=True)]

    def _ask(self, inputs: Inputs) -> Callable[[], Tensor | None]:
        if self._beside is None:
            return partial(self._teach, inputs)
        return self._beside.submit(self._teach, inputs).result
