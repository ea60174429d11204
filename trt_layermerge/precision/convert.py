"""A model in the precision that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import onnx

from trt_layermerge.errors import UsageError
from trt_layermerge.precision.half import to_half
from trt_layermerge.precision.quantise import to_int8
from trt_layermerge.precision.tolerance import Converted
from trt_layermerge.runtimes.base import Feed

_CONVERSIONS: Mapping[str, Callable[[onnx.ModelProto, Sequence[Feed]], Converted]] = MappingProxyType(
    {"fp32": lambda model, _: Converted(model, "fp32"), "fp16": to_half, "int8": to_int8}
)


def convert(model: onnx.ModelProto, precision: str, batches: Sequence[Feed]) -> Converted:
    """Write an FP32 model in a precision.

    Args:
        model: With a dynamic batch, which it keeps, as it does the names.
        precision: ``fp32``, ``fp16`` or ``int8``.
        batches: Real inputs, some tens to some hundreds of images; not looked at for ``fp32``.

    Raises:
        UsageError: There is no such precision.
        ModelError: The model cannot be in this precision.
        VerificationError: The precision changes its output by more than the tolerance.
    """
    if precision not in _CONVERSIONS:
        raise UsageError(f"unknown precision {precision!r}", hint=f"precisions: {', '.join(_CONVERSIONS)}")
    return _CONVERSIONS[precision](model, batches)
