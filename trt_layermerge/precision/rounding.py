"""A model in FP32 that computes what its FP16 form does: the same weights, and every tensor rounded to a half.

ONNX Runtime's CPU provider has no FP16 convolutions. Given an FP16 model it computes in FP32 and leaves out the
roundings, and with them every overflow; casts that are written out it computes as written.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.precision.graph import constants, copy_of, float_tensors


def rounded(model: onnx.ModelProto, half: onnx.ModelProto, full: Collection[str]) -> onnx.ModelProto:
    """The model with the roundings of its FP16 form; tensors keep their names.

    Args:
        model: In FP32.
        half: In FP16, for its weights.
        full: Names of the nodes that are in FP32 in ``half``, too.
    """
    result, values = copy_of(model), constants(half)
    for tensor in result.graph.initializer:
        if values[tensor.name].dtype == np.float16:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].astype(np.float32), tensor.name))
    rounder = _Rounder(model)
    for node in model.graph.node:
        rounder.add(node, in_full=node.name in full)
    del result.graph.node[:], result.graph.value_info[:]
    result.graph.node.extend(rounder.nodes)
    return result


class _Rounder:
    """The nodes of the result while they are collected."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Begin with the inputs, which are not rounded."""
        self.nodes: list[onnx.NodeProto] = []
        self._floats = float_tensors(model)
        self._exact = {value.name for value in model.graph.input}

    def add(self, node: onnx.NodeProto, *, in_full: bool) -> None:
        """Append a node with the roundings before and after it."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if in_full:
            self._exact.update(node.output)
            self.nodes.append(copy)
            return
        for index, name in enumerate(node.input):
            if name in self._exact and name in self._floats:
                copy.input[index] = f"{name}/{node.name}"
                self._round(name, copy.input[index])
        written = [name for name in node.output if name in self._floats]
        copy.output[:] = [f"{name}/exact" if name in written else name for name in node.output]
        self.nodes.append(copy)
        for name in written:
            self._round(f"{name}/exact", name)

    def _round(self, name: str, result: str) -> None:
        half = f"{result}/half"
        self.nodes.append(helper.make_node("Cast", [name], [half], to=onnx.TensorProto.FLOAT16))
        self.nodes.append(helper.make_node("Cast", [half], [result], to=onnx.TensorProto.FLOAT))
