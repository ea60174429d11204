"""What a GPU executes of an ONNX graph: convolutions with what is fused into them, and kernels that move memory.

Rules, in this order; each node is of the first that fits:

1. What is known before the network runs (weights, their dequantisation, shapes) costs nothing.
2. What only names a tensor differently (reshapes, casts, Q/DQ pairs that a convolution takes in) costs nothing.
3. Convolutions and products with matrices are kernels, and so is what is pooled, normalised, gathered or laid out
again. 4. Operations pixel by pixel are executed by the kernel that made the last of their inputs, as TensorRT fuses
them.

A kernel reads what others made and writes what others need. An addition of a tensor of a convolution's own output
shape is its residual; whatever else it reads or writes is added at the speed of memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import onnx
from onnx import helper

from trt_layermerge.errors import ModelError
from trt_layermerge.estimation.workload import MemoryOperation, Workload
from trt_layermerge.probe import DAMAGED
from trt_layermerge.runtimes.base import Shape
from trt_layermerge.runtimes.models import inferred, shapes_of

_NAMES = {
    "Cast",
    "DequantizeLinear",
    "Dropout",
    "Flatten",
    "Identity",
    "QuantizeLinear",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
}
_POINTWISE = {
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Neg",
        "Abs",
        "Sqrt",
        "Reciprocal",
        "Exp",
        "Log",
        "Erf",
        "Where",
    ),
    *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid"),
    *("Softplus", "Softsign", "Mish", "Gelu", "ThresholdedRelu", "BatchNormalization", "Floor", "Ceil", "Round", "Sum"),
}
_TWICE = {"InstanceNormalization", "GroupNormalization", "LayerNormalization", "Softmax", "LogSoftmax"}
"""Read their input twice: once for its statistics."""

_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


@dataclass
class _Kernel:
    """A kernel while it grows: what its first node takes in, and what those read and made that are fused into it."""

    workload: Workload | None
    taken: set[str]
    passes: int
    precision: str
    made: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)


KernelWork = Workload | MemoryOperation


def gpu_kernels(model: onnx.ModelProto, where: str = "the model") -> tuple[KernelWork, ...]:
    """What the kernels of a graph do, in order; what a convolution moves besides is a move of no kernel of its own.

    Args:
        model: ONNX with all shapes of its inputs fixed.
        where: What to call it in messages.

    Raises:
        ModelError: A shape cannot be known before the model runs, or a convolution is no 2-D one.
    """
    return _Graph(inferred(model, where), where).kernels()


class _Graph:
    """A graph on its way to kernels."""

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        graph, self._where = model.graph, where
        self._nodes, self._outputs = graph.node, [value.name for value in graph.output]
        values = [*graph.input, *graph.value_info, *graph.output]
        self._shapes: dict[str, Shape] = shapes_of(values)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._constants = {tensor.name for tensor in graph.initializer} | {""}
        self._weights: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self._kernels: list[_Kernel] = []
        self._maker: dict[str, int] = {}
        self._source: dict[str, str] = {}
        self._quantised: set[str] = set()

    def kernels(self) -> tuple[KernelWork, ...]:
        for node in self._nodes:
            self._take(node)
        needed: dict[str, set[int]] = {}
        for index, kernel in enumerate(self._kernels):
            for name in kernel.taken | kernel.read:
                needed.setdefault(name, set()).add(index)
        for name in self._outputs:
            needed.setdefault(self._of(name), set()).add(-1)
        return tuple(one for index, kernel in enumerate(self._kernels) for one in self._finished(index, kernel, needed))

    def _take(self, node: onnx.NodeProto) -> None:
        varying = [self._of(name) for name in node.input if name not in self._constants]
        indices = all(self._types.get(name) == onnx.TensorProto.INT64 for name in node.output)
        if not varying or indices or node.op_type in ("Shape", "Constant", "ConstantOfShape"):  # rule 1
            self._constants.update(node.output)
            if node.op_type == "DequantizeLinear" and node.input[0] in self._weights:
                self._weights[node.output[0]] = self._weights[node.input[0]]
            return
        if node.op_type in _NAMES:  # rule 2
            self._source[node.output[0]] = varying[0]
            if node.op_type == "DequantizeLinear":
                self._quantised.add(node.output[0])
            return
        makers = [self._maker[name] for name in varying if name in self._maker]
        if node.op_type in _POINTWISE and makers:  # rule 4
            self._join(max(makers), node, varying)
            return
        workload = self._workload(node) if node.op_type in _PRODUCTS else None  # rule 3
        passes = 2 if node.op_type in _TWICE else 1
        self._kernels.append(_Kernel(workload, set(varying), passes, self._precision(node.input[0])))
        self._join(len(self._kernels) - 1, node, ())

    def _join(self, index: int, node: onnx.NodeProto, varying: Iterable[str]) -> None:
        kernel = self._kernels[index]
        kernel.read |= set(varying) - kernel.made
        made = [name for name in node.output if name]
        kernel.made.update(made)
        self._maker.update(dict.fromkeys(made, index))

    def _finished(self, index: int, kernel: _Kernel, needed: Mapping[str, set[int]]) -> tuple[KernelWork, ...]:
        written = sum(self._size(name) for name in kernel.made if needed.get(name, set()) - {index})
        if kernel.workload is None:
            read = sum(self._size(name) for name in kernel.taken | kernel.read)
            return (MemoryOperation(kernel.passes * read, written, kernel.precision, kernel.passes),)
        workload = kernel.workload
        read = sum(self._size(name) for name in kernel.read)
        output = workload.batch * workload.out_channels * workload.pixels
        if read == output:
            workload, read = replace(workload, residual=True), 0
        more = MemoryOperation(read, max(written - output, 0), kernel.precision, kernels=0)
        return (workload, more) if more.read or more.written else (workload,)

    def _workload(self, node: onnx.NodeProto) -> Workload:
        try:
            attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            shape, precision = self._shape(node.input[0]), self._precision(node.input[0])
            if node.op_type in ("Gemm", "MatMul"):
                rows, inner = prod(shape[:-1]), shape[-1]
                if attributes.get("transA"):
                    rows, inner = inner, rows
                columns = self._shape(node.output[0])[-1]
                return Workload(rows, inner, columns, 1, 1, (1, 1), precision=precision)
            return self._convolution(node, attributes, shape, precision)
        except ValueError as error:  # in words of ours
            raise self._malformed(node, str(error)) from error
        except (LookupError, TypeError) as error:
            raise self._malformed(node, "it lacks inputs, dimensions or numbers of an attribute") from error

    def _malformed(self, node: onnx.NodeProto, why: str) -> ModelError:
        name = node.name or next(iter(node.output), "")
        return ModelError(f"{self._where} is malformed at {node.op_type} node {name!r}: {why}", hint=DAMAGED)

    def _convolution(
        self, node: onnx.NodeProto, attributes: Mapping[str, object], shape: Shape, precision: str
    ) -> Workload:
        weights, groups = self._shape(node.input[1]), int(str(attributes.get("group", 1)))
        if not 3 <= len(shape) <= 4:
            raise ValueError(f"convolutions of {len(shape) - 2} dimensions cannot be estimated")
        flat = (1,) * (4 - len(shape))  # in one dimension the height is 1
        height, width = flat + shape[2:]
        kernel = flat + weights[2:]
        if node.op_type == "ConvTranspose":  # the product, before what overlaps is added
            return Workload(
                shape[0],
                shape[1],
                weights[1] * groups * prod(kernel),
                height,
                width,
                (1, 1),
                groups=groups,
                precision=precision,
            )
        stride, dilation = (
            flat + tuple(_numbers(attributes.get(name), len(shape) - 2)) for name in ("strides", "dilations")
        )
        pads = _pads(attributes, (height, width), flat + self._shape(node.output[0])[2:], kernel, stride, dilation)
        return Workload(
            shape[0],
            shape[1],
            weights[0],
            height,
            width,
            kernel=(kernel[0], kernel[1]),
            stride=(stride[0], stride[1]),
            padding=pads,
            dilation=(dilation[0], dilation[1]),
            groups=groups,
            precision=precision,
        )

    def _of(self, name: str) -> str:
        """The tensor that a name stands for."""
        while name in self._source:
            name = self._source[name]
        return name

    def _precision(self, name: str) -> str:
        if name in self._quantised:
            return "int8"
        return "fp16" if self._types.get(name) == onnx.TensorProto.FLOAT16 else "fp32"

    def _size(self, name: str) -> int:
        return prod(self._shape(name))

    def _shape(self, name: str) -> Shape:
        shape = self._weights.get(name) or self._shapes.get(name)
        if shape is None or not all(shape):
            raise ModelError(
                f"{self._where}: the shape of {name!r} cannot be known before it runs",
                hint="export it with fixed shapes, or plan by another runtime",
            )
        return shape


def _numbers(value: object, count: int) -> list[int]:
    return [int(one) for one in value] if isinstance(value, list) else [1] * count


def _pads(
    attributes: Mapping[str, object], size: Shape, output: Shape, kernel: Shape, stride: Shape, dilation: Shape
) -> tuple[int, int, int, int]:
    """Zeros at the top, the left, the bottom and the right: as the node says, or as its output's size tells."""
    given = attributes.get("pads")
    if isinstance(given, list) and any(given):
        along = len(given) // 2
        top, left = [0] * (2 - along) + given[:along]
        bottom, right = [0] * (2 - along) + given[along:]
        return top, left, bottom, right
    more = [
        max((output[axis] - 1) * stride[axis] + 1 + (kernel[axis] - 1) * dilation[axis] - size[axis], 0)
        for axis in (0, 1)
    ]
    return more[0] // 2, more[1] // 2, more[0] - more[0] // 2, more[1] - more[1] // 2
