"""Typing an FP32 graph in FP16: which nodes compute in halves, casts between those that do and those that do not."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.precision.float_tensors import constants, copy_of, float_tensors

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16

_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}
"""Inputs that are of type float whatever the others are, by operator and position."""


def in_half(model: onnx.ModelProto, full: Collection[str] = ()) -> onnx.ModelProto:
    """The model in FP16, unchecked.

    Tensors keep their names. Between two nodes that stay in FP32 nothing is rounded. Inputs and outputs of the model
    stay float32.

    Args:
        model: In FP32, without control flow.
        full: Names of the nodes that stay in FP32; those without float inputs do anyway.
    """
    caster = _Caster(model)
    for node in model.graph.node:
        caster.add(node, full=node.name in full)
    half = copy_of(model)
    del half.graph.node[:], half.graph.initializer[:], half.graph.value_info[:]
    half.graph.node.extend(caster.nodes)
    half.graph.initializer.extend(caster.initializers.values())
    onnx.checker.check_model(half, full_check=True)
    return half


class _Caster:
    """The nodes and initializers of the result while they are collected."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Begin with the inputs, which are float."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._constants = constants(model)
        self._floats = float_tensors(model).keys() - self._constants.keys()
        self._outputs = {value.name for value in model.graph.output}
        self._types = {value.name: FLOAT for value in model.graph.input}
        self._casts: dict[str, str] = {}

    def add(self, node: onnx.NodeProto, *, full: bool) -> None:
        """Append a node, with casts and constants of the type that it computes in."""
        reads = any(name in self._floats for name in node.input)
        wanted = FLOAT if full or not reads else HALF
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            copy.input[index] = self._read(name, FLOAT if (node.op_type, index) in _ALWAYS_FLOAT else wanted)
        written = [name for name in node.output if name in self._floats]
        self._types.update(dict.fromkeys(written, wanted))
        self.nodes.append(copy)
        if wanted == HALF:
            for name in set(written) & self._outputs:
                copy.output[list(node.output).index(name)] = f"{name}/half"
                self._cast(f"{name}/half", name, FLOAT)

    def _read(self, name: str, wanted: int) -> str:
        """The name under which a tensor or a constant can be read in the wanted type."""
        if name in self._constants:
            return self._constant(name, wanted)
        if name not in self._floats:
            return name
        if name in self._outputs and self._types[name] == HALF:
            return f"{name}/half" if wanted == HALF else name  # before the cast, or behind it
        if self._types[name] == wanted:
            return name
        result = f"{name}/{'half' if wanted == HALF else 'float'}"
        if result not in self._casts:
            self._casts[result] = name
            self._cast(name, result, wanted)
        return result

    def _constant(self, name: str, wanted: int) -> str:
        value = self._constants[name]
        if value.dtype == np.float32:
            name, value = (name, value.astype(np.float16)) if wanted == HALF else (f"{name}/float", value)
        self.initializers.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def _cast(self, name: str, result: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [name], [result], f"{result}/cast", to=to))
