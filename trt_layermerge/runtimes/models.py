"""A model with the shapes of its inputs fixed, as every runtime takes it, and ranges of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from trt_layermerge.errors import ModelError
from trt_layermerge.onnxfile import infer_types, inputs_of
from trt_layermerge.runtimes.base import Shape

_SHAPES = "give the shapes of the inputs that the model says, batch included"


def with_shapes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """A copy of the model with all dimensions of its inputs fixed.

    Raises:
        ModelError: A shape does not fit its input, or a dimension is still open.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    inputs = inputs_of(result.graph)
    if unknown := sorted(shapes.keys() - inputs.keys()):
        raise ModelError(f"the model has no input {unknown[0]!r}, only {', '.join(inputs) or 'none'}", hint=_SHAPES)
    for name, value in inputs.items():
        _fix(value, shapes.get(name))
    return result


def shapes_of(values: Iterable[onnx.ValueInfoProto]) -> dict[str, Shape]:
    """Shapes of inputs or outputs, by name; 0 stands for an open dimension."""
    return {value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in values}


def inferred(model: onnx.ModelProto, where: str = "the model") -> onnx.ModelProto:
    """A model with the shapes of all its tensors, as far as they follow from those of its inputs.

    Raises:
        ModelError: The model contradicts itself.
    """
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what the file says of an open batch would stand in the way
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    result = infer_types(bare, where, values=True)
    known = {value.name for value in (*result.graph.value_info, *result.graph.output) if _is_known(value)}
    made = {name for node in result.graph.node for name in node.output if name}
    return result if known.issuperset(made) else _through_sizes(result)


def _is_known(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return kind.HasField("shape") and all(size.dim_value for size in kind.shape.dim)


def _through_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """With shapes that are computed from those of other tensors, which onnx follows through few operators alone.

    The steps of ``SymbolicShapeInference.infer_shapes``, which writes a file into the working folder where it fails.
    """
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference  # sympy takes long to load

    try:
        inference, known = SymbolicShapeInference(2**31 - 1, True, False, 0), False
        inference._preprocess(model)
        while inference.run_:
            known = inference._infer_impl()
        inference._update_output_from_vi()
    except Exception:  # its own, of every kind; whoever needs a shape that is open says which
        return model
    found: onnx.ModelProto = inference.out_mp_
    return found if known else model


def output_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the outputs of a model whose inputs are fixed.

    Raises:
        ModelError: One is still open.
    """
    outputs = inferred(model).graph.output
    for value in outputs:
        if not _is_known(value):
            raise ModelError(
                f"the shape of output {value.name!r} cannot be known before the model runs",
                hint="export it with fixed shapes",
            )
    return shapes_of(outputs)


def shape_ranges(shapes: Mapping[str, Shape], batches: tuple[int, int] | None) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Smallest, best and largest shape of each input.

    Args:
        shapes: Those that an engine is tuned for; the batch comes first.
        batches: Smallest and largest batch that it takes; ``None`` for that of the shapes alone.

    Raises:
        ModelError: A batch is not in the range.
    """
    ranges = {}
    for name, shape in shapes.items():
        low, high = batches or (shape[0], shape[0])
        if not low <= shape[0] <= high:
            raise ModelError(f"input {name!r}: batch {shape[0]} is not in the range of the engine, {low} to {high}")
        ranges[name] = ((low, *shape[1:]), shape, (high, *shape[1:]))
    return ranges


def _fix(value: onnx.ValueInfoProto, shape: Shape | None) -> None:
    dimensions = value.type.tensor_type.shape.dim
    known = tuple(dimension.dim_value for dimension in dimensions)
    wanted = known if shape is None else shape
    if len(wanted) != len(known) or any(have not in (0, want) for have, want in zip(known, wanted, strict=True)):
        raise ModelError(
            f"input {value.name!r} of shape {known} cannot take {wanted} (0 stands for an open dimension)", hint=_SHAPES
        )
    if not all(wanted):
        raise ModelError(f"input {value.name!r} has an open shape {wanted}", hint=_SHAPES)
    for dimension, size in zip(dimensions, wanted, strict=True):
        dimension.dim_value = size
