"""The numeric check of a conversion: what each layer loses to the lower precision, and what is too much."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from types import MappingProxyType
from typing import TYPE_CHECKING

from trt_layermerge.errors import ModelError, VerificationError
from trt_layermerge.runtimes.base import Feed

if TYPE_CHECKING:  # manifests hold layers' figures, and are read by commands that need no ONNX
    import onnx

    from trt_layermerge.precision.float_tensors import WeightedLayer
    from trt_layermerge.precision.weights import Loss

OUTPUT_TOLERANCE: Mapping[str, float] = MappingProxyType({"fp32": 1e-4, "fp16": 1e-2, "int8": 0.25})
"""Largest difference of an engine's output and the PyTorch network's, over the largest output, by precision.

In INT8 it only tells a broken graph from a working one: what INT8 costs is the accuracy through the engine.
"""

CHECKED = 64
"""Images that a conversion is compared on with FP32; more may be there to calibrate on."""

_NAMED = 3


@dataclass(frozen=True)
class LayerCheck:
    """A layer in lower precision beside itself in FP32, on the calibration inputs.

    Attributes:
        name: Of the module: ``stages.0.conv1``, or ``merged_0_3_5`` for the block (3, 5] of chain 0.
        largest: Largest magnitude of its output in FP32; FP16 ends at 65504.
        flushed: Share of its weights that are 0 in lower precision and not in FP32.
        weights: Relative error of its weights, in the Euclidean norm; ``None`` where one overflows.
        error: Largest difference of its output over ``largest``, with the errors of the layers before it.
        full: It stays in FP32, since the lower precision cannot hold its values or its weights.
    """

    name: str
    largest: float
    flushed: float
    weights: float | None
    error: float
    full: bool

    @classmethod
    def of(cls, layer: WeightedLayer, largest: float, loss: Loss, error: float, *, full: bool = False) -> LayerCheck:
        """From what its output and its weights lose."""
        return cls(layer.name, largest, loss.flushed, loss.error if isfinite(loss.error) else None, error, full)


@dataclass(frozen=True)
class Converted:
    """A model in one precision.

    Attributes:
        model: Every type in it is explicit; inputs and outputs are float32.
        precision: ``fp32``, ``fp16`` or ``int8``.
        error: Largest difference of an output of it and of the FP32 model, over the largest value of that output, on
            the calibration inputs; 0 for FP32.
        layers: What each layer loses.
    """

    model: onnx.ModelProto
    precision: str
    error: float = 0.0
    layers: tuple[LayerCheck, ...] = ()

    @property
    def full(self) -> tuple[str, ...]:
        """The layers that stay in FP32."""
        return tuple(layer.name for layer in self.layers if layer.full)


def require_finite_tensors(largest: Mapping[str, float], layers: Mapping[str, str]) -> None:
    """Refuse a network that computes infinities by itself.

    Args:
        largest: Largest magnitude of each tensor, in the order of the graph.
        layers: Name of the layer that writes a tensor.

    Raises:
        ModelError: It does; the message names the first layer that does so.
    """
    wrong = next((name for name, value in largest.items() if not value < float("inf")), None)
    if wrong is not None:
        raise ModelError(
            f"the network itself, in FP32, computes inf or NaN on the calibration inputs, first in "
            f"{layers.get(wrong, wrong)}",
            hint="look at its weights and at the data",
        )


def require_close(converted: Converted) -> Converted:
    """Refuse a conversion that changes the network too much.

    Raises:
        VerificationError: It does; the message names the layers that add most to the error.
    """
    allowed = OUTPUT_TOLERANCE[converted.precision]
    if converted.error <= allowed:
        return converted
    raise VerificationError(
        f"in {converted.precision}, the network's output is off by {converted.error:.1e} of the largest (allowed: "
        f"{allowed:.0e}); the error grows most in {', '.join(_worst(converted.layers))}",
        hint="deliver it in a higher precision: --precision " + ("fp16" if converted.precision == "int8" else "fp32"),
    )


def checked(batches: Sequence[Feed]) -> Sequence[Feed]:
    """The first batches, with ``CHECKED`` images or a few more."""
    images = list(accumulate(len(next(iter(batch.values()))) for batch in batches))
    return batches[: bisect_left(images, CHECKED) + 1]


def _worst(layers: Sequence[LayerCheck]) -> list[str]:
    """Names and errors of the layers whose error is largest against that of the layer before."""
    before = [0.0, *(layer.error for layer in layers)]
    growth = sorted(zip(layers, before, strict=False), key=lambda pair: pair[1] - pair[0].error)
    return [f"{layer.name} ({layer.error:.1e})" for layer, _ in growth[:_NAMED]]
