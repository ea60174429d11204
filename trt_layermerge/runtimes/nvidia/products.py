"""Matrix products of images of one pixel as convolutions, for compilers that have no float32 matrix product.

TensorRT-RTX refuses float32 matrix products for SM75 and compiles float32 convolutions. A classifier ``[N, C]`` times
``[C, K]`` is a 1x1 convolution of ``[N, C, 1, 1]``: the same products, the same sums, the same float32.
See docs/decisions/0017-classifier-as-convolution.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.onnxfile import infer_types
from trt_layermerge.runtimes.base import Array

_SUFFIX = "/as_convolution"


def as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose float32 matrix products with constant weights are 1x1 convolutions.

    Rewritten are ``Gemm`` and ``MatMul`` of a ``[N, C]`` tensor with a ``[C, K]`` initializer. Anything else stays as
    it is, and the compiler says what it thinks of it.

    Args:
        model: Left alone.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result)
    nodes = [new for node in result.graph.node for new in graph.rewritten(node)]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    graph.drop_unused()
    return result


class _Graph:
    """A model's graph while it is rewritten."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Learn the constants and the ranks of a model."""
        inferred = infer_types(model).graph
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }
        self._replaced: set[str] = set()

    def rewritten(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The nodes that take a node's place; the node itself where there are none."""
        factors = self._factors(node)
        if factors is None:
            yield node
            return
        weights, bias = factors
        self._replaced.update(node.input[1:])
        prefix = f"{node.name or node.output[0]}{_SUFFIX}"
        pixels = self._add(f"{prefix}/pixels", np.array([0, -1, 1, 1], np.int64))  # 0: as many as there are
        rows = self._add(f"{prefix}/rows", np.array([0, -1], np.int64))
        parameters = [self._add(f"{prefix}/weights", weights[:, :, None, None])]
        if bias is not None:
            parameters.append(self._add(f"{prefix}/bias", bias))
        before, after = f"{prefix}/input", f"{prefix}/output"
        yield helper.make_node("Reshape", [node.input[0], pixels], [before], f"{prefix}/before")
        yield helper.make_node("Conv", [before, *parameters], [after], prefix, kernel_shape=[1, 1])
        yield helper.make_node("Reshape", [after, rows], [node.output[0]], f"{prefix}/after")

    def drop_unused(self) -> None:
        """Remove the constants that only the replaced nodes read."""
        used = {name for node in self._graph.node for name in node.input}
        for name in self._replaced - used - {value.name for value in self._graph.output}:
            if name in self._constants:
                self._graph.initializer.remove(self._constants[name])

    def _factors(self, node: onnx.NodeProto) -> tuple[Array, Array | None] | None:
        """Weights ``[K, C]`` and bias ``[K]`` of a product that can be rewritten."""
        if node.op_type not in ("Gemm", "MatMul") or self._ranks.get(node.input[0]) != 2:
            return None
        weights = self._constant(node.input[1])
        if weights is None or weights.ndim != 2 or weights.dtype != np.float32:
            return None
        if node.op_type == "MatMul":
            return weights.T, None
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if given.get("transA", 0):
            return None
        weights = weights if given.get("transB", 0) else weights.T
        weights = weights * np.float32(given.get("alpha", 1.0))
        if len(node.input) < 3 or not node.input[2]:
            return weights, None
        bias = self._constant(node.input[2])
        if bias is None or bias.size not in (1, len(weights)):
            return None  # computed, or another one for each image
        bias = np.broadcast_to(bias.reshape(-1), len(weights))
        return weights, bias * np.float32(given.get("beta", 1.0))

    def _constant(self, name: str) -> Array | None:
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _add(self, name: str, value: Array) -> str:
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name
