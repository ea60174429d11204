"""ONNX as every runtime takes it: read from wherever it is, with the shapes of its inputs fixed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.protocol import Model, Shape


def read_model(model: Model) -> onnx.ModelProto:
    """The model in memory.

    Raises:
        ModelError: It is not ONNX, or its weights lie where they may not.
    """
    where = f"file {model}" if isinstance(model, Path) else "the model"
    try:
        proto = _parsed(model)
    except (OSError, DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{where} cannot be read as ONNX: {error}") from error
    if not proto.graph.node:
        raise ModelError(f"{where} is not an ONNX model: it has no graph")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelError(f"{where} keeps weights in another file", hint="give the path of the model's file")
    return proto


def _parsed(model: Model) -> onnx.ModelProto:
    if isinstance(model, Path):
        return onnx.load(model)  # follows external data, within the model's folder only
    return onnx.load_from_string(model) if isinstance(model, bytes) else model


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of the model with all dimensions of its inputs fixed.

    Raises:
        ModelError: A shape does not fit its input, or a dimension is still open.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {tensor.name for tensor in result.graph.initializer}
    inputs = {value.name: value for value in result.graph.input if value.name not in weights}
    if unknown := sorted(shapes.keys() - inputs.keys()):
        raise ModelError(f"the model has no input {unknown[0]!r}, only {', '.join(inputs)}")
    for name, value in inputs.items():
        _fix(value, shapes.get(name))
    return result


def _fix(value: onnx.ValueInfoProto, shape: Shape | None) -> None:
    dimensions = value.type.tensor_type.shape.dim
    known = tuple(dimension.dim_value for dimension in dimensions)
    wanted = known if shape is None else shape
    if len(wanted) != len(known) or any(have not in (0, want) for have, want in zip(known, wanted, strict=True)):
        raise ModelError(f"input {value.name!r} of shape {known} cannot take {wanted} (0 stands for an open dimension)")
    if not all(wanted):
        raise ModelError(f"input {value.name!r} has an open shape {wanted}", hint="give the shape, batch included")
    for dimension, size in zip(dimensions, wanted, strict=True):
        dimension.dim_value = size
