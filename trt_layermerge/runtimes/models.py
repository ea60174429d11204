"""A model with the shapes of its inputs fixed, as every runtime takes it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trt_layermerge.errors import ModelError
from trt_layermerge.onnxfile import inputs_of
from trt_layermerge.runtimes.protocol import Shape


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of the model with all dimensions of its inputs fixed.

    Raises:
        ModelError: A shape does not fit its input, or a dimension is still open.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inputs = inputs_of(result.graph)
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
