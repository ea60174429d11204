"""What the conversions read off an ONNX graph: its float tensors, its layers with weights, what those are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from trt_layermerge.onnxfile import infer_types
from trt_layermerge.runtimes.base import Array

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights: what is done in lower precision for the sake of speed."""


@dataclass(frozen=True)
class WeightedLayer:
    """An operator with weights.

    Attributes:
        name: Of the module that it was: ``stages.0.conv1``, or ``merged_0_3_5`` for the block (3, 5] of chain 0.
        node: Of its node.
        input: The tensor that it reads.
        weight: The initializer with its weights.
        output: The tensor that it writes.
    """

    name: str
    node: str
    input: str
    weight: str
    output: str


def weighted_layers(model: onnx.ModelProto) -> tuple[WeightedLayer, ...]:
    """The operators with constant weights, in order."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        WeightedLayer(node.input[1].removesuffix(".weight"), node.name, node.input[0], node.input[1], node.output[0])
        for node in model.graph.node
        if node.op_type in WEIGHTED and node.input[1] in constants
    )


def constants(model: onnx.ModelProto) -> dict[str, Array]:
    """The initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def float_tensors(model: onnx.ModelProto) -> Mapping[str, onnx.ValueInfoProto]:
    """Inputs, outputs and whatever nodes hand to each other, of type float; initializers are none of these.

    Raises:
        ModelError: A type cannot be inferred.
    """
    graph = infer_types(model, strict=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
