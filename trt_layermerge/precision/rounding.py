"""A model in FP32 that computes what one in FP16 does: the same weights, and every half rounded as it is written.

ONNX Runtime's CPU provider has no FP16 convolutions. Given an FP16 model it computes in FP32 and leaves out the
roundings, and with them every overflow; casts that are written out it computes as written.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.precision.casting import FLOAT, HALF
from trt_layermerge.precision.graph import constants, copy_of


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 model of an FP16 one; tensors keep their names."""
    result, inferred = copy_of(half), onnx.shape_inference.infer_shapes(half).graph
    halves = {value.name for value in inferred.value_info if value.type.tensor_type.elem_type == HALF}
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    for name, value in constants(half).items():
        exact = value.astype(np.float32) if value.dtype == np.float16 else value
        result.graph.initializer.append(numpy_helper.from_array(exact, name))
    for node in half.graph.node:
        result.graph.node.extend(_rounded(node, halves))
    return result


def _rounded(node: onnx.NodeProto, halves: set[str]) -> Iterator[onnx.NodeProto]:
    """A node, and the roundings of what it writes."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Cast":
        copy.op_type = "Identity"
        del copy.attribute[:]
    written = [name for name in node.output if name in halves]
    copy.output[:] = [f"{name}/exact" if name in written else name for name in node.output]
    yield copy
    for name in written:
        yield helper.make_node("Cast", [f"{name}/exact"], [f"{name}/rounded"], to=HALF)
        yield helper.make_node("Cast", [f"{name}/rounded"], [name], to=FLOAT)
