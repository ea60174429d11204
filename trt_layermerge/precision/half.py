"""FP16: casts at the borders, halves inside, and FP32 where a half cannot hold what the network computes.

The graph itself is typed, as TensorRT's strongly typed networks want it: no builder flag decides a layer's precision.
Inputs and outputs stay float32, so that whoever runs the engine need not know.

The check computes in FP32 and rounds every tensor to a half, as tensor cores do that accumulate in FP32; a kernel that
accumulates in FP16 may lose more. Why the conversion is our own: docs/decisions/0019-precision.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from trt_layermerge.errors import ModelError
from trt_layermerge.precision.casting import in_half
from trt_layermerge.precision.float_tensors import WEIGHTED, constants, weighted_layers
from trt_layermerge.precision.observe import largest_magnitudes, tensor_differences
from trt_layermerge.precision.rounding import rounded
from trt_layermerge.precision.tolerance import Converted, LayerCheck, checked, require_close, require_finite_tensors
from trt_layermerge.precision.weights import half_loss
from trt_layermerge.runtimes.base import Array, Feed

LARGEST_HALF = float(np.finfo(np.float16).max)

SMALLEST_HALF = float(np.finfo(np.float16).smallest_normal)
"""Below it, halves lose bits with every power of two; a tensor that lies below it altogether stays in FP32."""

MARGIN = 2.0
"""Values may become so many times as large as the calibration inputs show."""

WEIGHT_ERROR = 1e-2
"""Relative error of a layer's weights from which on they are lost; rounding ordinary ones is below 5e-4."""


def to_half(model: onnx.ModelProto, batches: Sequence[Feed]) -> Converted:
    """Convert a model to FP16 and check every layer of it.

    Args:
        model: In FP32.
        batches: Real inputs.

    Raises:
        ModelError: It computes inf or NaN in FP32 already, or no layer of it can be in FP16.
        VerificationError: FP16 changes its output by more than the tolerance.
    """
    largest, weights = largest_magnitudes(model, batches), constants(model)
    require_finite_tensors(largest, {layer.output: layer.name for layer in weighted_layers(model)})
    full = _unfit(model, largest, weights)
    if full.issuperset(layer.node for layer in weighted_layers(model)):
        raise ModelError(
            "no layer of the network can compute in FP16: halves hold neither its values nor its weights",
            hint="deliver it with --precision fp32",
        )
    half = in_half(model, full)
    outputs = {value.name for value in model.graph.output}
    tensors = {layer.output for layer in weighted_layers(model)} | outputs
    found = tensor_differences(rounded(half), model, sorted(tensors), checked(batches))
    checks = tuple(
        LayerCheck.of(
            layer,
            largest[layer.output],
            half_loss(weights[layer.weight]),
            found[layer.output].error,
            full=layer.node in full,
        )
        for layer in weighted_layers(model)
    )
    return require_close(Converted(half, "fp16", max(found[name].error for name in outputs), checks))


def _unfit(model: onnx.ModelProto, largest: Mapping[str, float], weights: Mapping[str, Array]) -> frozenset[str]:
    """Names of the nodes that stay in FP32: they read or write values, or have weights, that no half can hold.

    So a node that writes such values keeps those that read them in FP32, too.
    """
    unfit = {name for name, value in largest.items() if value > LARGEST_HALF / MARGIN or 0 < value < SMALLEST_HALF}
    unfit |= {name for name, values in weights.items() if _beyond(values)}
    unfit |= {layer.weight for layer in weighted_layers(model) if half_loss(weights[layer.weight]).error > WEIGHT_ERROR}
    nodes = {node.name for node in model.graph.node if unfit & {*node.input, *node.output}}
    return frozenset(nodes | _angles(model))


def _angles(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes that take a sine or cosine, and of those that make its angle, back to the last layers.

    Halves from 512 on are 0.5 or more apart: of the angle of a late time step little would be left.
    """
    writers = {name: node for node in model.graph.node for name in node.output}
    todo = [node for node in model.graph.node if node.op_type in ("Sin", "Cos")]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if node.name not in found and node.op_type not in WEIGHTED:
            found.add(node.name)
            todo += [writers[name] for name in node.input if name in writers]
    return found


def _beyond(values: Array) -> bool:
    return values.dtype == np.float32 and bool((np.abs(values) > LARGEST_HALF).any())
