"""What a network takes: one tensor or several, each with a name, a shape and a kind of numbers.

Every input has the batch as its first dimension, which the shapes here leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import cast

import torch
from torch import Tensor

INPUT = "input"
"""Name of the one input of a network that has only one."""

Values = Tensor | tuple[Tensor, ...]
"""One batch: a tensor, or one for each of a network's inputs, or of its outputs."""


@dataclass(frozen=True)
class Input:
    """One input of a network.

    Attributes:
        name: What it is called in an exported network.
        shape: Shape of one sample, without the batch; ``()`` for one number a sample.
        below: Whole numbers from 0 up to this, and without it, such as a time step's; ``None`` for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    below: int | None = None

    def example(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """Random values ``[batch, *shape]``: normal ones, or whole numbers as they may come."""
        generator = generator or torch.Generator().manual_seed(0)
        if self.below is None:
            return torch.randn(batch, *self.shape, generator=generator)
        return torch.randint(self.below, (batch, *self.shape), generator=generator)


def as_inputs(given: Sequence[int] | Sequence[Input]) -> tuple[Input, ...]:
    """Inputs as they are; a shape alone means one input of real numbers."""
    inputs = tuple(item for item in given if isinstance(item, Input))
    return inputs or (Input(INPUT, tuple(cast(Sequence[int], given))),)


def as_tuple(values: Values) -> tuple[Tensor, ...]:
    """A batch as one tensor for each input."""
    return (values,) if isinstance(values, Tensor) else values


def each(values: Values, change: Callable[[Tensor], Tensor]) -> Values:
    """Every tensor of a batch changed, in the form in which they came."""
    return change(values) if isinstance(values, Tensor) else tuple(map(change, values))


def parts_of(values: Values, number: int) -> list[Values]:
    """A batch in so many parts."""
    if isinstance(values, Tensor):
        return list(values.tensor_split(number))
    return list(zip(*(part.tensor_split(number) for part in values), strict=True))


def samples_in(values: Values) -> int:
    """Number of samples in a batch, of which an output may have several rows each; ``len`` would count the tensors."""
    return gcd(*map(len, as_tuple(values)))


def joined(batches: Iterable[Values]) -> tuple[Tensor, ...]:
    """Batches as one, input by input."""
    return tuple(torch.cat(parts) for parts in zip(*map(as_tuple, batches), strict=True))


def examples(inputs: Sequence[Input], batch: int) -> tuple[Tensor, ...]:
    """Random values of all inputs, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    return tuple(item.example(batch, generator) for item in inputs)


def batched_shapes(inputs: Sequence[Input], batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name, with the batch, as runtimes want them."""
    return {item.name: (batch, *item.shape) for item in inputs}


def resized(inputs: Sequence[Input], shape: tuple[int, ...]) -> tuple[Input, ...]:
    """The same inputs, the first one of another shape."""
    first, *others = inputs
    return (replace(first, shape=shape), *others)
