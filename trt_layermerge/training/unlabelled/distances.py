"""How far outputs are from those of the original, each output by its own scale: 0 where they are the same.

What is compared how is chosen from what the original makes of calibration data, or said by the user.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from trt_layermerge.errors import ModelError, UsageError, did_you_mean

_SUM_ERROR = 1e-3
"""Probabilities sum to one within this."""

_LEAST_SCALE = 1e-4
"""Of a channel, as a share of the geometric mean of all: one that hardly changes would count for more than the rest."""


class Distance(ABC):
    """Of one output, ``[batch, ...]``, from the original's; frozen, so that it means the same in every stage.

    Attributes:
        name: As users ask for it.
        agrees_by: What ``agreement`` is, in words.
    """

    name: ClassVar[str]
    agrees_by: ClassVar[str]

    @classmethod
    @abstractmethod
    def of(cls, original: Tensor) -> Distance:
        """Scaled by what the original makes of calibration data, ``[samples, ...]``.

        Raises:
            ValueError: It is nothing that can be compared so; the message says what it must be.
        """

    @abstractmethod
    def __call__(self, output: Tensor, original: Tensor) -> Tensor:
        """Of every sample, ``[batch]``: 0 or more."""

    @abstractmethod
    def agreement(self, output: Tensor, original: Tensor) -> Tensor:
        """Of every sample, ``[batch]``: 1 where both are the same."""

    def softened(self, temperature: float) -> Distance:
        """What training minimises: the same, or a smoother relative of it."""
        return self

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Divergence(Distance):
    """T^2 KL(original || output), mean over positions, of logits along dimension 1; agreement is that of the top class.

    As in Hinton, Vinyals and Dean, arXiv 1503.02531, section 2.
    """

    name = "logits"
    agrees_by = "top-1"

    temperature: float = 1.0

    @classmethod
    def of(cls, original: Tensor) -> Divergence:
        if original.ndim < 2 or original.shape[1] < 2:
            raise ValueError("logits are of two classes or more, in dimension 1")
        return cls()

    def __call__(self, output: Tensor, original: Tensor) -> Tensor:
        learned, taught = (F.log_softmax(values / self.temperature, 1) for values in (output, original))
        return self.temperature**2 * _each_sample(_divergence(learned, taught, 1))

    def agreement(self, output: Tensor, original: Tensor) -> Tensor:
        return _each_sample((output.argmax(1) == original.argmax(1)).float())

    def softened(self, temperature: float) -> Divergence:
        return Divergence(temperature)


@dataclass(frozen=True)
class ProbabilityDivergence(Distance):
    """T^2 KL(original || output), mean over positions, of what are probabilities already along a dimension.

    Their logarithms are logits, to a constant, and are softened as such: near to 1 a probability says next to nothing.
    """

    name = "probabilities"
    agrees_by = "top-1"

    dimension: int
    temperature: float = 1.0

    @classmethod
    def of(cls, original: Tensor) -> ProbabilityDivergence:
        dimension = next((one for one in _feature_dimensions(original) if _are_probabilities(original, one)), None)
        if dimension is None:
            raise ValueError("probabilities are 0 or more and sum to one, in dimension 1 or in the last")
        return cls(dimension)

    def __call__(self, output: Tensor, original: Tensor) -> Tensor:
        tiny = torch.finfo(torch.float32).eps
        logits = (values.float().clamp_min(tiny).log() / self.temperature for values in (output, original))
        learned, taught = (F.log_softmax(values, self.dimension) for values in logits)
        return self.temperature**2 * _each_sample(_divergence(learned, taught, self.dimension))

    def agreement(self, output: Tensor, original: Tensor) -> Tensor:
        both = (values.argmax(self.dimension) for values in (output, original))
        return _each_sample(torch.eq(*both).float())

    def softened(self, temperature: float) -> ProbabilityDivergence:
        return replace(self, temperature=temperature)


@dataclass(frozen=True)
class NormalisedError(Distance):
    """Mean square of the difference, each channel by its variance in the original: 1 misses as much as a constant does.

    Attributes:
        dimension: Of the channels.
        scales: Variance of each.
    """

    name = "error"
    agrees_by = "1 - normalised error"

    dimension: int
    scales: tuple[float, ...]

    @classmethod
    def of(cls, original: Tensor) -> NormalisedError:
        dimensions = _feature_dimensions(original)[: 2 if original.ndim == 3 else 1] or (0,)
        found = {dimension: _variances(original, dimension) for dimension in dimensions}
        # Boxes beside scores lie in a dimension in which scales are far apart.
        dimension = max(found, key=lambda one: _spread(found[one]))
        variance, logs = found[dimension], _logs(found[dimension])
        typical = float(logs.mean().exp()) if len(logs) else float(original.double().square().mean()) or 1.0
        return cls(dimension, tuple(variance.clamp_min(_LEAST_SCALE * typical if len(logs) else typical).tolist()))

    def __call__(self, output: Tensor, original: Tensor) -> Tensor:
        scales = torch.tensor(self.scales, device=output.device, dtype=torch.float32)
        shape = [1] * output.ndim
        shape[self.dimension] = len(self.scales)
        return _each_sample((output - original).square() / scales.view(shape))

    def agreement(self, output: Tensor, original: Tensor) -> Tensor:
        return 1 - self(output, original)


KINDS: Mapping[str, type[Distance]] = {kind.name: kind for kind in (Divergence, ProbabilityDivergence, NormalisedError)}
"""All distances, as users ask for them."""


def choose_distances(original: Mapping[str, Tensor], told: Mapping[str, str]) -> dict[str, Distance]:
    """The distance of each output.

    1. What the user says of an output is done.
    2. Probabilities, in dimension 1 or in the last, are compared as such.
    3. An output ``[batch, classes]`` of two classes or more is logits, if it is the only one, or called so, as
       ``logits`` is or ``class_logits``.
    4. All others are compared by normalised error: maps, boxes, scores, features.

    Args:
        original: What the original makes of calibration data, ``[samples, ...]``, by name.
        told: Names of outputs and of the distances that the user wants for them.

    Raises:
        ModelError: An output of the original is not finite.
        UsageError: There is no such output or no such distance, or the output cannot be compared so.
    """
    if unknown := [name for name in told if name not in original]:
        hint = did_you_mean(unknown[0], original, f"its outputs are {', '.join(original)}")
        raise UsageError(f"the network has no output {unknown[0]!r} to compare", hint=hint)
    found = {}
    for name, values in original.items():
        if not bool(values.isfinite().all()):
            raise ModelError(
                f"output {name!r} of the original is inf or NaN on the calibration images",
                hint="check the weights, and whether images are prepared as the network wants them: --scale, --mean",
            )
        kind = told.get(name) or _kind_of(name, values, alone=len(original) == 1)
        if kind not in KINDS:
            raise UsageError(f"there is no distance {kind!r}", hint=f"there are {', '.join(KINDS)}")
        try:
            found[name] = KINDS[kind].of(values)
        except ValueError as error:
            shape = ["batch", *values.shape[1:]]
            raise UsageError(f"output {name!r}, [{', '.join(map(str, shape))}], is no {kind}: {error}") from error
    return found


def _kind_of(name: str, values: Tensor, *, alone: bool) -> str:
    if any(_are_probabilities(values, dimension) for dimension in _feature_dimensions(values)):  # rule 2
        return ProbabilityDivergence.name
    if values.ndim == 2 and values.shape[1] > 1 and (alone or "logits" in name.lower()):  # rule 3
        return Divergence.name
    return NormalisedError.name  # rule 4


def _feature_dimensions(values: Tensor) -> Sequence[int]:
    """Where channels or classes may lie: in dimension 1, or in the last one."""
    return tuple(dict.fromkeys((1, values.ndim - 1))) if values.ndim > 1 else ()


def _are_probabilities(values: Tensor, dimension: int) -> bool:
    sums = values.double().sum(dimension)
    return values.shape[dimension] > 1 and bool((values >= 0).all() and ((sums - 1).abs() <= _SUM_ERROR).all())


def _divergence(learned: Tensor, taught: Tensor, dimension: int) -> Tensor:
    return F.kl_div(learned, taught, reduction="none", log_target=True).sum(dimension)


def _variances(values: Tensor, dimension: int) -> Tensor:
    """Of each channel, ``[channels]``, float64; of all there is where there are none."""
    if not dimension:
        return values.double().var(correction=0).view(1)
    channels = values.double().movedim(dimension, 0)
    return channels.reshape(len(channels), prod(channels.shape[1:])).var(1, correction=0)


def _logs(variance: Tensor) -> Tensor:
    """Logarithms of those that are above 0, to rounding."""
    return variance[variance > 1e-12 * variance.max()].log()


def _spread(variance: Tensor) -> float:
    """How far apart scales are: the standard deviation of their logarithms."""
    logs = _logs(variance)
    return float(logs.std(correction=0)) if len(logs) > 1 else 0.0


def _each_sample(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1).mean(1)
