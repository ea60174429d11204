"""ONNX files: the opset that they are written in, and reading them, with weights from inside their own folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper

from trt_layermerge.errors import ModelError, said
from trt_layermerge.probe import DAMAGED

OPSET = 18
"""Old enough for TensorRT 10 and ONNX Runtime 1.14, new enough for what torch emits."""


def read_onnx(model: Path | bytes | onnx.ModelProto, *, weights: bool = True) -> onnx.ModelProto:
    """A model in memory.

    Args:
        model: A file, its bytes, or what is in memory already.
        weights: Whether to follow a file to weights that lie outside of it, which is allowed within its folder only.

    Raises:
        ModelError: It is not ONNX, or its weights lie where they may not.
    """
    where = named_model(model)
    if isinstance(model, Path) and model.exists() and not model.is_file():  # a pipe, a device without an end
        raise ModelError(f"{where} cannot be read as ONNX: it is no file", hint="give the path of the model's file")
    try:
        if isinstance(model, Path):
            proto = onnx.load(model, format="protobuf", load_external_data=weights)
        else:
            proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    except OSError as error:
        raise ModelError(f"{where} cannot be read as ONNX: {error.strerror}", hint="give a file of yours") from error
    except onnx.checker.ValidationError as error:  # of where weights lie
        raise ModelError(f"{where} cannot be read as ONNX: {said(error)}", hint=DAMAGED) from error
    except (ValueError, RuntimeError, DecodeError) as error:
        raise ModelError(f"{where} cannot be read as ONNX: it is something else, or cut short", hint=DAMAGED) from error
    if not proto.graph.node:
        raise ModelError(f"{where} is not an ONNX model: it has no graph", hint=DAMAGED)
    if weights and any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        raise ModelError(f"{where} keeps weights in another file", hint="give the path of the model's file")
    return proto


def named_model(model: Path | bytes | onnx.ModelProto) -> str:
    """What messages call a model: the file that it is read from, where there is one."""
    return f"file {model}" if isinstance(model, Path) else "the model"


def weight_files(path: Path) -> list[str]:
    """Where the weights lie that a model keeps outside of its own file, relative to that.

    Raises:
        ModelError: It is not ONNX.
    """
    tensors = read_onnx(path, weights=False).graph.initializer
    told = (entry for one in tensors if one.data_location == one.EXTERNAL for entry in one.external_data)
    return sorted({entry.value for entry in told if entry.key == "location"})


def infer_types(
    model: onnx.ModelProto, where: str = "the model", *, strict: bool = False, values: bool = False
) -> onnx.ModelProto:
    """A model with the types and shapes that follow from those of its inputs.

    Args:
        model: The model; it is left as it is.
        where: What to call it in messages.
        strict: Whether a node that nothing can be inferred of is an error.
        values: Whether to follow shapes that are computed.

    Raises:
        ModelError: They contradict each other.
    """
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=values)
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"the shapes and types of {where} contradict each other: {said(error)}", hint=DAMAGED
        ) from error


def initial_values(graph: onnx.GraphProto, where: str = "the model") -> dict[str, NDArray[Any]]:
    """What the initializers of a graph hold, by name.

    Raises:
        ModelError: One holds something else than its shape and type say, or has a type that nobody knows.
    """
    found = {}
    for one in graph.initializer:
        try:
            found[one.name] = numpy_helper.to_array(one)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise ModelError(
                f"{where} is malformed: {one.name!r} has the shape {list(one.dims)} and the data type {one.data_type}, "
                "which what it holds does not fit",
                hint=DAMAGED,
            ) from error
    return found


def inputs_of(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    """The inputs of a graph that are to be given, by name; old files list their weights among the inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    return {value.name: value for value in graph.input if value.name not in weights}
