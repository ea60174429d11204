"""The ONNX that engines are built from: the FP32 one itself, or its form in a lower precision, written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from trt_layermerge.files import write_bytes
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.onnxfile import inputs_of
from trt_layermerge.precision.convert import convert
from trt_layermerge.precision.tolerance import LayerCheck


@dataclass(frozen=True)
class Typed:
    """A network's ONNX files, and what the conversion cost.

    Attributes:
        path: What engines are built from.
        source: In FP32; the same file where that is what engines are built from.
        error: Largest difference of the outputs of both over the largest, on real inputs; 0 for FP32.
        layers: What each layer loses; empty for FP32.
    """

    path: Path
    source: Path
    error: float = 0.0
    layers: tuple[LayerCheck, ...] = ()


def write_typed(source: Path, precision: str, batches: Sequence[Values]) -> Typed:
    """Write an FP32 ONNX file in a precision: ``compressed.onnx`` becomes ``compressed.fp16.onnx``.

    Args:
        source: In FP32, as ``export_onnx`` writes it.
        precision: ``fp32``, which writes nothing, ``fp16`` or ``int8``.
        batches: Real inputs, ``[batch, ...]`` for each of the network's; not looked at for ``fp32``.

    Raises:
        ModelError: The network cannot be in this precision.
        VerificationError: The precision changes its output by more than the tolerance.
    """
    if precision == "fp32":
        return Typed(source, source)
    model = onnx.load(source)
    names = inputs_of(model.graph)
    feeds = [dict(zip(names, (v.numpy() for v in as_tuple(batch)), strict=True)) for batch in batches]
    converted = convert(model, precision, feeds)
    path = typed_path(source, precision)
    write_bytes(path, converted.model.SerializeToString())
    return Typed(path, source, converted.error, converted.layers)


def typed_path(source: Path, precision: str) -> Path:
    """Where the form of an FP32 ONNX file in a precision lies."""
    return source if precision == "fp32" else source.with_suffix(f".{precision}.onnx")
