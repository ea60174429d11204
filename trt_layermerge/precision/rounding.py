"""A model in FP32 that computes what one in FP16 does: the same weights, and every half rounded as it is written.

ONNX Runtime's CPU provider has no FP16 convolutions. Given an FP16 model it computes in FP32 and leaves out the
roundings, and with them every overflow; casts that are written out it computes as written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.onnxfile import infer_types
from trt_layermerge.precision.casting import FLOAT, HALF
from trt_layermerge.precision.float_tensors import constants, copy_of


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 model of an FP16 one; tensors keep their names."""
    result, inferred = copy_of(half), infer_types(half).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)}
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    for name, value in constants(half).items():
        exact = value.astype(np.float32) if value.dtype == np.float16 else value
        result.graph.initializer.append(numpy_helper.from_array(exact, name))
    for node in half.graph.node:
        result.graph.node.extend(_rounded(node, types))
    return result


def _rounded(node: onnx.NodeProto, types: Mapping[str, int]) -> Iterator[onnx.NodeProto]:
    """A node, and the roundings of what it writes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Cast" and {types.get(node.input[0]), node.attribute[0].i} <= {FLOAT, HALF}:
        copy.op_type = "Identity"
        del copy.attribute[:]
    written = [name for name in node.output if types.get(name) == HALF]
    copy.output[:] = [f"{name}/exact" if name in written else name for name in node.output]
    yield copy
    for name in written:
        yield helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=HALF)
        yield helper.make_node("Cast", [f"{name}/rounded"], [name], to=FLOAT)
