"""What an ONNX graph computes in, read off the graph itself, so that nobody has to be trusted on it."""

from __future__ import annotations

import onnx

from trt_layermerge.errors import ModelError
from trt_layermerge.onnxfile import infer_types
from trt_layermerge.runtimes.base import PRECISIONS

_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_TYPES = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}


def graph_precision(model: onnx.ModelProto, where: str = "the model") -> str:
    """The narrowest precision of a model's convolutions and matrix products.

    ``int8`` where both factors of one come out of ``DequantizeLinear``, which is how Q/DQ says it; else by the type of
    the weights. A model without any such operation has the type of its inputs.

    Raises:
        ModelError: None of it is in a precision that is known here.
    """
    inferred = infer_types(model, where).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types.setdefault(value.name, value.type.tensor_type.elem_type)
    dequantised = {node.output[0] for node in inferred.node if node.op_type == "DequantizeLinear"}
    found = set()
    for node in inferred.node:
        if node.op_type in _PRODUCTS:
            quantised = dequantised.issuperset(node.input[:2])
            found.add("int8" if quantised else _TYPES.get(types.get("".join(node.input[1:2]), 0)))
    found = found or {_TYPES.get(types.get(value.name, 0)) for value in inferred.input}
    known = [precision for precision in PRECISIONS if precision in found]
    if not known:
        raise ModelError(f"{where} computes in none of the known precisions", hint=f"known: {', '.join(PRECISIONS)}")
    return known[-1]


def require_precision(model: onnx.ModelProto, precision: str, where: str = "the model") -> None:
    """See that a model is written in the precision that it is said to be in.

    Raises:
        ModelError: It is not.
    """
    actual = graph_precision(model, where)
    if actual != precision:
        raise ModelError(
            f"{where} is written in {actual}, not in {precision}",
            hint=f"say --precision {actual}, or convert the graph first: no builder changes it",
        )
