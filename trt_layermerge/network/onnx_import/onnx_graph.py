"""The graph of an ONNX file as a value: checked, functions inlined, constants folded, free of its batch size.

Numbers are brought to float32, whatever the file keeps them in, unless its types are asked for. What nothing reads is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper
from onnx.inliner import inline_local_functions
from onnx.reference import ReferenceEvaluator

from trt_layermerge.errors import ModelError, said
from trt_layermerge.onnxfile import initial_values, inputs_of
from trt_layermerge.probe import DAMAGED

OnnxArray = NDArray[Any]

OLDEST_OPSET = 7
"""From here on, operators broadcast as NumPy does."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
OWN = ("", "ai.onnx")
"""ONNX's own domain, by both its names."""

_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_FLATTENED = ("Softmax", "LogSoftmax", "Hardmax")
"""Run over all axes from one on before set 13, along that one alone since; the evaluator knows the latter only."""

_KNOWN_SINCE = {"DequantizeLinear": 19}
"""What the evaluator knows from a newer set on, where older ones meant the same."""

_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        op: Operator, with its domain where that is not ONNX's own: ``com.microsoft::FusedConv``.
        name: Its own name, or that of its first output.
        inputs: Names of values; an input that is left out is empty.
        outputs: Names of values.
        attributes: As Python values; strings are text.
        opset: Version of the operator set that gives the operator its meaning.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(attribute, default)

    def __str__(self) -> str:
        """For messages: operator and name."""
        return f"{self.op} node {self.name!r}"


@dataclass(frozen=True)
class OnnxGraph:
    """A graph.

    Attributes:
        inputs: Names of its inputs, in order.
        shapes: Of one sample of each, such as channels, height, width; ``None`` where the file leaves one open.
        outputs: Names of its outputs, in order.
        nodes: In order of execution; every one is needed, and none has constant inputs alone.
        constants: Values that are known, by name.
        origins: The weight in the file that a constant was computed from, by the constant's name.
        typed: Floats are as wide as the file has them; else all of them are alike, and none is cast to another width.
    """

    inputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, OnnxArray]
    origins: Mapping[str, str]
    typed: bool = False

    @property
    def producers(self) -> dict[str, Node]:
        """The node that computes a value, by the value's name."""
        return {output: node for node in self.nodes for output in node.outputs}

    def with_nodes(self, nodes: tuple[Node, ...]) -> OnnxGraph:
        """The same graph of other nodes, without those that no output needs."""
        needed, kept = set(self.outputs), []
        for node in reversed(nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        return replace(self, nodes=tuple(reversed(kept)))


def read_graph(proto: onnx.ModelProto, where: str) -> OnnxGraph:
    """Take the graph out of a model, free of its batch size.

    Args:
        proto: The model, weights and all.
        where: What to call it in messages.

    Raises:
        ModelError: It is malformed, of unknown operator sets, has control flow, or takes anything but batches of
            floats, or returns a constant.
    """
    proto, opset = _checked(proto, where)
    inputs = inputs_of(proto.graph)
    if not inputs:
        raise ModelError(f"{where} takes no inputs; a batch of floats is needed")
    sizes = [_batched_sizes(name, value, where) for name, value in inputs.items()]
    batches = {batch for batch, *_ in sizes if batch is not None}
    if len(batches) > 1:
        raise ModelError(
            f"{where} takes inputs of several batches ({', '.join(map(str, sorted(batches)))}): the first size of each "
            "must be that of all",
            hint="what is the same for all samples belongs into the network, as a constant",
        )
    graph = _graph(proto, where, opset, tuple(inputs), tuple(shape for _, *shape in sizes))
    return _freed(graph, batches.pop()) if batches else graph


def read_typed_graph(proto: onnx.ModelProto, where: str) -> OnnxGraph:
    """Take the graph out of a model as it is: any number of inputs, its own shapes, floats of its own types.

    Args:
        proto: The model, weights and all.
        where: What to call it in messages.

    Raises:
        ModelError: It is malformed, of unknown operator sets, has control flow, or returns a constant.
    """
    proto, opset = _checked(proto, where)
    return _graph(proto, where, opset, tuple(inputs_of(proto.graph)), (), typed=True)


def _checked(proto: onnx.ModelProto, where: str) -> tuple[onnx.ModelProto, int]:
    """A model that is well formed, its functions written out, with its operator set."""
    opset = _opset(proto, where)
    try:
        proto = inline_local_functions(proto) if proto.functions else proto
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{where} has functions that cannot be written out: {said(error)}", hint=DAMAGED) from error
    _refuse_control_flow(proto.graph, where)
    _check_nodes(proto, opset, where)
    return proto, opset


def _graph(
    proto: onnx.ModelProto,
    where: str,
    opset: int,
    inputs: tuple[str, ...],
    shapes: Sequence[Sequence[int | None]],
    *,
    typed: bool = False,
) -> OnnxGraph:
    outputs = tuple(value.name for value in proto.graph.output)
    read = _as_it_is if typed else _single
    constants = {name: read(values) for name, values in initial_values(proto.graph, where).items()}
    origins = {name: name for name, array in constants.items() if array.dtype.kind == "f"}
    nodes = _folded(proto.graph, constants, origins, opset, read)
    graph = OnnxGraph(inputs, tuple(map(tuple, shapes)), outputs, (), constants, origins, typed).with_nodes(nodes)
    for output in outputs:
        if output not in graph.producers and output not in inputs:
            raise ModelError(
                f"{where} returns what does not depend on its input ({output})",
                hint="export the model without this output",
            )
    return graph


def _opset(proto: onnx.ModelProto, where: str) -> int:
    versions = [entry.version for entry in proto.opset_import if entry.domain in OWN]
    newest = onnx.defs.onnx_opset_version()
    if not versions or not OLDEST_OPSET <= versions[0] <= newest:
        has = f"operator set {versions[0]}" if versions else "none of ONNX's own operators"
        raise ModelError(
            f"{where} has {has}; {OLDEST_OPSET} to {newest} can be read",
            hint="export it again, or convert it with onnx.version_converter; a newer onnx knows newer sets",
        )
    return int(versions[0])


def _refuse_control_flow(graph: onnx.GraphProto, where: str) -> None:
    for node in graph.node:
        if any(attribute.type in _GRAPHS for attribute in node.attribute):
            raise ModelError(
                f"{where} has control flow: {node.op_type} node {_name(node)!r} holds a graph of its own",
                hint="export the model without branches and loops that depend on data",
            )


def _check_nodes(proto: onnx.ModelProto, opset: int, where: str) -> None:
    """Every node has the attributes and inputs that its operator needs, and stands behind those that it reads.

    The checker for whole models would also refuse files that every runtime takes, such as those without output shapes.
    """
    if not 0 <= proto.ir_version < 2**31:  # 0 where a file says none
        raise ModelError(f"{where} says that it is of version {proto.ir_version} of the ONNX format", hint=DAMAGED)
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = dict.fromkeys(OWN, opset)  # nodes of other domains are not checked
    known = {"", *inputs_of(proto.graph), *(tensor.name for tensor in proto.graph.initializer)}
    for node in proto.graph.node:
        try:
            if node.domain in OWN:  # others are not supported, if they matter
                onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            raise ModelError(
                f"{where} is malformed at {node.op_type} node {_name(node)!r}: {said(error)}", hint=DAMAGED
            ) from error
        for name in node.input:
            if name not in known:
                raise ModelError(
                    f"{where} is malformed: {node.op_type} node {_name(node)!r} reads {name!r} before it is computed",
                    hint=DAMAGED,
                )
        known.update(node.output)
    outputs = [value.name for value in proto.graph.output]
    for name in outputs:
        if name not in known:
            raise ModelError(f"{where} is malformed: nothing computes its output {name!r}", hint=DAMAGED)
        if outputs.count(name) > 1:
            raise ModelError(f"{where} is malformed: it returns {name!r} twice", hint=DAMAGED)


def _batched_sizes(name: str, value: onnx.ValueInfoProto, where: str) -> list[int | None]:
    """The batch that the file fixes for an input, and the shape of a sample: an image, or sound, or anything."""
    kind = value.type.tensor_type
    sizes = [dim.dim_value or None for dim in kind.shape.dim]
    if kind.elem_type not in _FLOATS or not sizes:
        known = TensorProto.DataType.Name(kind.elem_type).lower()
        shape = "x".join("?" if size is None else str(size) for size in sizes)
        raise ModelError(
            f"input {name!r} of {where} is {known} of shape [{shape}]; a batch of floats is needed, such as images "
            "[batch, channels, height, width]",
            hint="what turns anything else into floats belongs outside of the network",
        )
    return sizes


def _folded(
    graph: onnx.GraphProto, constants: dict[str, OnnxArray], origins: dict[str, str], opset: int, read: _Reading
) -> tuple[Node, ...]:
    """The nodes that are left once all that is known is computed; what is computed joins the constants."""
    nodes = []
    for proto in graph.node:
        inputs = [name for name in proto.input if name]
        if read is _single and proto.op_type == "CastLike" and inputs[0] in constants:  # all floats are alike here
            constants[proto.output[0]] = constants[inputs[0]]
            continue
        if all(name in constants for name in inputs) and proto.op_type not in _RANDOM:
            results = _evaluated(proto, {name: constants[name] for name in inputs}, opset, read)
            if results is not None:
                constants.update(results)
                sources = {origins[name] for name in inputs if name in origins}
                if len(sources) == 1 and proto.op_type != "Shape":
                    origins.update(dict.fromkeys(results, *sources))
                continue
        nodes.append(_node(proto, opset))
    return tuple(nodes)


def _evaluated(
    proto: onnx.NodeProto, inputs: dict[str, OnnxArray], opset: int, read: _Reading
) -> dict[str, OnnxArray] | None:
    if proto.domain not in OWN or (proto.op_type in _FLATTENED and opset < 13):
        return None
    # As a graph of its own: of a node alone, the evaluator takes the newest meaning, whatever sets it is told.
    given, made = ([onnx.ValueInfoProto(name=name) for name in names if name] for names in (inputs, proto.output))
    graph = helper.make_graph([proto], "constant", given, made)
    known_since = _KNOWN_SINCE.get(proto.op_type, OLDEST_OPSET)
    try:
        results = ReferenceEvaluator(graph, opsets={"": max(opset, known_since)}).run(None, inputs)
    except Exception:  # the evaluator's own, of every kind; if the node matters, its operator says what is wrong
        return None
    return {value.name: read(np.asarray(result)) for value, result in zip(made, results, strict=True)}


_Reading = Callable[[OnnxArray], OnnxArray]


def _as_it_is(array: OnnxArray) -> OnnxArray:
    return array


def _single(array: OnnxArray) -> OnnxArray:
    """Floats of any width in float32."""
    floats = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float32) if floats and array.dtype != np.float32 else array


def _node(proto: onnx.NodeProto, opset: int) -> Node:
    own = proto.domain in OWN
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in proto.attribute}
    return Node(
        proto.op_type if own else f"{proto.domain}::{proto.op_type}",
        _name(proto),
        tuple(proto.input),
        tuple(proto.output),
        {name: _text(value) for name, value in attributes.items()},
        opset,
    )


def _text(value: Any) -> Any:
    """An attribute with strings as text, lists of them too."""
    if isinstance(value, bytes):
        return value.decode()
    return [_text(one) for one in value] if isinstance(value, list) else value


def _name(proto: onnx.NodeProto) -> str:
    return str(proto.name or next(iter(proto.output), ""))


def _freed(graph: OnnxGraph, batch: int) -> OnnxGraph:
    """The graph for any batch, where the file fixes one: constant shapes that begin with it are written again.

    ``[batch, 1280]`` becomes ``[-1, 1280]``, ``[batch, -1]`` becomes ``[0, -1]``, where 0 stands for 'as it comes'; so
    does a multiple of the batch, as where frames are folded into it, if all other sizes are known.
    Whether samples then keep apart is for tracing to check.
    """
    constants, nodes = dict(graph.constants), []
    for node in graph.nodes:
        target = graph.constants.get(node.inputs[1]) if node.op in ("Reshape", "Expand") else None
        if target is not None and target.ndim == 1 and len(target) and _begins_with(batch, target, node.op):
            first = 0 if -1 in target[1:] and not node.get("allowzero", 0) else -1
            first = 1 if node.op == "Expand" else first  # stretches to what it meets
            free = f"{node.inputs[1]} of {node.outputs[0]}"
            constants[free] = np.array([first, *target[1:]], np.int64)
            node = replace(node, inputs=(node.inputs[0], free))
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _begins_with(batch: int, target: OnnxArray, op: str) -> bool:
    """Whether the first of these sizes is the batch, or a multiple of it that can be left open."""
    multiple = op == "Reshape" and target[0] > 0 and target[0] % batch == 0 and bool((target[1:] > 0).all())
    return bool(target[0] == batch) or multiple
