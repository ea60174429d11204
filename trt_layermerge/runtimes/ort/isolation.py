"""A block as ONNX Runtime would run it amid a network, without the network.

On a CPU, ONNX Runtime runs convolutions in a blocked layout (NCHWc): ``ReorderInput`` and ``ReorderOutput`` stand where
a network enters and leaves it, and a residual addition is fused into a convolution only if the other summand is
blocked too. A block optimised alone would pay for reorders that it does not meet in its network, and miss fusions that
it does. So:

1. a neighbour is put at each end: a convolution on every input, one on every output;
2. the three are optimised together;
3. the neighbours are cut away. Inputs and outputs of what is left are tensors in the blocked layout.

A reorder that is left is the block's own: it would meet it between any two ordinary convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trt_layermerge.errors import ModelError
from trt_layermerge.onnxfile import infer_types
from trt_layermerge.runtimes.base import Shape

_PREFIX = "neighbour/"
_BLOCKED = "com.microsoft.nchwc"
_CONVOLUTIONS = ("Conv", "FusedConv")


def isolated(model: onnx.ModelProto, optimise: Callable[[onnx.ModelProto], onnx.ModelProto]) -> onnx.ModelProto:
    """The optimised form of a model as it would run amid a network; to be run without optimising it again.

    Args:
        model: A model whose input shapes are known. Inputs and outputs that are no float images stay as they are.
        optimise: ONNX Runtime's optimiser.

    Raises:
        ModelError: The neighbours cannot be told from the model once they are optimised together.
    """
    model = infer_types(model)
    inputs = {value.name: shape for value in model.graph.input if (shape := _image_shape(value))}
    outputs = {value.name: shape for value in model.graph.output if (shape := _image_shape(value))}
    graph = _Graph(optimise(_with_neighbours(model, inputs, outputs)).graph)
    for name, shape in inputs.items():
        graph.cut_before(name, shape)
    for name in outputs:
        graph.cut_after(name)
    return graph.model(like=model)


def in_place(model: onnx.ModelProto) -> tuple[str, str] | None:
    """The input and the output that share their memory within a network, if there are such.

    A convolution with a fused addition works in the memory of the other summand, which in a network is not used again.
    """
    inputs = {value.name for value in model.graph.input}
    for node in model.graph.node:
        fused = node.op_type in _CONVOLUTIONS and len(node.input) > 3 and node.input[3] in inputs
        if fused and [node.output[0]] == [value.name for value in model.graph.output]:
            return node.input[3], node.output[0]
    return None


def _image_shape(value: onnx.ValueInfoProto) -> Shape | None:
    """Shape of a float tensor of four known dimensions, or ``None``."""
    tensor = value.type.tensor_type
    shape = tuple(dimension.dim_value for dimension in tensor.shape.dim)
    return shape if tensor.elem_type == onnx.TensorProto.FLOAT and len(shape) == 4 and all(shape) else None


def _with_neighbours(model: onnx.ModelProto, inputs: dict[str, Shape], outputs: dict[str, Shape]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:], graph.value_info[:]
    for name, shape in inputs.items():
        graph.initializer.append(_weights(name, shape[1]))
        # The activation keeps the optimiser from fusing the block's own addition or activation into the neighbour.
        graph.node.append(helper.make_node("Conv", [name, _weights_name(name)], [f"{_PREFIX}{name}/linear"]))
        graph.node.append(helper.make_node("Tanh", [f"{_PREFIX}{name}/linear"], [_PREFIX + name]))
    graph.node.extend(model.graph.node)
    for node in graph.node[2 * len(inputs) :]:
        for index, name in enumerate(node.input):
            if name in inputs:
                node.input[index] = _PREFIX + name
    for value in graph.output:
        if value.name in outputs:
            name = value.name
            graph.initializer.append(_weights(name, outputs[name][1]))
            graph.node.append(helper.make_node("Conv", [name, _weights_name(name)], [_PREFIX + name]))
            value.name = _PREFIX + name
    return result


def _weights_name(name: str) -> str:
    return f"{_PREFIX}{name}/weights"


def _weights(name: str, channels: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.full((channels, channels, 1, 1), 0.01, np.float32), _weights_name(name))


class _Graph:
    """An optimised graph with neighbours, while they are cut away."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Take the graph apart."""
        self._nodes = list(graph.node)
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = {value.name: value for value in graph.input}
        self._outputs = {value.name: value for value in graph.output}

    def cut_before(self, name: str, shape: Shape) -> None:
        """Remove the neighbour at an input; its output becomes the input, under the same name."""
        node = self._only_consumer(name)
        while node.op_type not in _CONVOLUTIONS:
            node = self._remove(node)
        channels = self._weights[node.input[1]].dims[0]  # those of the layout: a multiple of the block's
        token, fused = node.output[0], any(attribute.name == "activation" for attribute in node.attribute)
        self._nodes.remove(node)
        if not fused:
            token = self._take(token)
        readers = self._consumers(token)
        if len(readers) == 1 and readers[0].op_type == "ReorderOutput" and self._feeds_narrow(readers[0].output[0]):
            # The convolution reads few channels, in plain layout; whoever computed them has paid for that.
            token, channels = self._take(token), shape[1]
        self._rename(token, name)
        dimensions = (shape[0], channels, *shape[2:])
        self._inputs[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dimensions)

    def cut_after(self, name: str) -> None:
        """Remove the neighbour at an output; its input becomes the output, under the same name."""
        node = self._producer(_PREFIX + name)
        while node.op_type not in _CONVOLUTIONS:
            self._nodes.remove(node)
            node = self._producer(node.input[0])
        self._nodes.remove(node)
        if node.input[0] in self._inputs:
            raise ModelError(f"nothing of the model is left to time between its inputs and output {name!r}")
        self._rename(node.input[0], name)
        del self._outputs[_PREFIX + name]
        # Without a shape: shape inference knows blocked tensors less well than the kernels that compute them do.
        self._outputs[name] = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)

    def model(self, like: onnx.ModelProto) -> onnx.ModelProto:
        """What is left, with inputs and outputs in the order of the original."""
        used = {name for node in self._nodes for name in node.input}
        graph = helper.make_graph(
            self._nodes,
            like.graph.name,
            [self._inputs[value.name] for value in like.graph.input],
            [self._outputs[value.name] for value in like.graph.output],
            [tensor for name, tensor in self._weights.items() if name in used],
        )
        versions = dict.fromkeys((node.domain for node in self._nodes), 1)
        versions |= {entry.domain: entry.version for entry in like.opset_import}
        opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=like.ir_version)

    def _consumers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self._nodes if name in node.input]

    def _only_consumer(self, name: str) -> onnx.NodeProto:
        return _only(self._consumers(name), name)

    def _producer(self, name: str) -> onnx.NodeProto:
        return _only((node for node in self._nodes if name in node.output), name)

    def _remove(self, node: onnx.NodeProto) -> onnx.NodeProto:
        self._nodes.remove(node)
        return self._only_consumer(node.output[0])

    def _take(self, name: str) -> str:
        """Remove the only node that reads a tensor; the name of what it computed."""
        node = self._only_consumer(name)
        self._nodes.remove(node)
        return str(node.output[0])

    def _feeds_narrow(self, name: str) -> bool:
        """Only blocked convolutions read this plain tensor."""
        readers = self._consumers(name)
        return all(node.domain == _BLOCKED and node.op_type == "Conv" and node.input[0] == name for node in readers)

    def _rename(self, old: str, new: str) -> None:
        """Give a tensor a name; the tensor that had it, if there is one, gets the old name in exchange."""
        exchanged = {old: new, new: old}
        for node in self._nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    names[index] = exchanged.get(name, name)


def _only(nodes: Iterable[onnx.NodeProto], name: str) -> onnx.NodeProto:
    found = list(nodes)
    if len(found) != 1:
        raise ModelError(f"cannot cut the neighbours off an optimised model: {len(found)} nodes at tensor {name!r}")
    return found[0]
