"""FP16: casts at the borders, halves inside, and FP32 where a half cannot hold what the network computes.

The graph itself is typed, as TensorRT's strongly typed networks want it: no builder flag decides a layer's precision.
Inputs and outputs stay float32, so that whoever runs the engine need not know.

The conversion is ONNX Runtime's, which is here anyway (docs/decisions/0019). What it does silently, clamp weights that
a half cannot hold, is found here first: such layers stay in FP32. The check computes in FP32 and rounds every tensor to
a half, as tensor cores do that accumulate in FP32; a kernel that accumulates in FP16 may lose more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from trt_layermerge.precision.check import LayerCheck, Typed, require_close, require_finite
from trt_layermerge.precision.graph import constants, copy_of, layers
from trt_layermerge.precision.observe import differences, largest_magnitudes
from trt_layermerge.precision.rounding import rounded
from trt_layermerge.runtimes.protocol import Array

LARGEST = float(np.finfo(np.float16).max)

SMALLEST = float(np.finfo(np.float16).smallest_normal)
"""Below it, halves lose bits with every power of two; a tensor that lies below it altogether stays in FP32."""

MARGIN = 2.0
"""Values may become so many times as large as the calibration inputs show."""

WEIGHT_ERROR = 1e-2
"""Relative error of a layer's weights from which on they are lost; rounding ordinary ones is below 5e-4."""


def to_half(model: onnx.ModelProto, batches: Sequence[Array]) -> Typed:
    """Convert a model to FP16 and check every layer of it.

    Args:
        model: In FP32, with one input.
        batches: Real inputs ``[batch, ...]``.

    Raises:
        ModelError: It computes inf or NaN in FP32 already.
        VerificationError: FP16 changes its output by more than the tolerance.
    """
    largest, weights = largest_magnitudes(model, batches), constants(model)
    require_finite(largest, {layer.output: layer.name for layer in layers(model)})
    full = _unfit(model, largest, weights)
    half = convert(model, full)
    output = model.graph.output[0].name
    tensors = {layer.output for layer in layers(model)} | {output}
    found = differences(rounded(model, half, full), model, sorted(tensors), batches)
    checks = tuple(
        LayerCheck(
            name=layer.name,
            largest=largest[layer.output],
            flushed=flushed(weights[layer.weight]),
            weights=weight_error(weights[layer.weight]),
            error=found[layer.output].error,
            full=layer.node in full,
        )
        for layer in layers(model)
    )
    return require_close(Typed(half, "fp16", found[output].error, checks))


def convert(model: onnx.ModelProto, full: Collection[str] = ()) -> onnx.ModelProto:
    """The model in FP16, unchecked, but for some nodes by name."""
    half = convert_float_to_float16(copy_of(model), keep_io_types=True, node_block_list=list(full))
    OnnxModel(half).topological_sort()  # casts were appended at the end
    onnx.checker.check_model(half, full_check=True)
    return half


def weight_error(weights: Array) -> float:
    """Euclidean norm of what rounding to halves changes, over that of the weights; infinite where one overflows."""
    exact = weights.astype(np.float64)
    with np.errstate(over="ignore"):
        error = float(np.linalg.norm(weights.astype(np.float16) - exact))
    return error / max(float(np.linalg.norm(exact)), float(np.finfo(np.float64).tiny))


def flushed(weights: Array) -> float:
    """Share of the weights that are not 0 and become 0 as halves."""
    with np.errstate(over="ignore"):
        lost = (weights != 0) & (weights.astype(np.float16) == 0)
    return float(lost.sum() / max(1, np.count_nonzero(weights)))


def _unfit(model: onnx.ModelProto, largest: Mapping[str, float], weights: Mapping[str, Array]) -> frozenset[str]:
    """Names of the nodes that stay in FP32: they read or write values, or have weights, that no half can hold.

    So a node that writes such values keeps those that read them in FP32, too.
    """
    unfit = {name for name, value in largest.items() if value > LARGEST / MARGIN or 0 < value < SMALLEST}
    unfit |= {name for name, values in weights.items() if _beyond(values)}
    unfit |= {layer.weight for layer in layers(model) if weight_error(weights[layer.weight]) > WEIGHT_ERROR}
    return frozenset(node.name for node in model.graph.node if unfit & {*node.input, *node.output})


def _beyond(values: Array) -> bool:
    return values.dtype == np.float32 and bool((np.abs(values) > LARGEST).any())
