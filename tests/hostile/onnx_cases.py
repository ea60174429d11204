"""ONNX files of nothing else than one convolution, of which one thing is what no exporter writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.hostile.case import Hostile, Right

Change = Callable[[ModelProto], object]


def _valid() -> ModelProto:
    filters = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", c, 8, 8]) for name, c in (("x", 1), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], [filters])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


NAMES = (
    *(
        "import",
        "None",
        "class",
        "self",
        "a'b\"c",
        "a\nb",
        "__class__",
        "\ufb01",
        "{x}",
        "%s",
        "/a/b",
        "\u00b2",
        "\u202ex",
    ),
    *("forward", "torch", "a\0b", "n" * 70_000, "a.b..c", "[red]x[/red]"),
)
NUMBERS = (0, -1, 2**31, 2**62, -(2**63))
ATTRIBUTES = {"kernel_shape": 2, "strides": 2, "dilations": 2, "pads": 4, "group": 0}
"""Of a convolution, and how many numbers each is."""

EXTERNAL: dict[str, dict[str, object]] = {
    "absolute": {"location": "/etc/passwd"},
    "above": {"location": "../../../../etc/passwd"},
    "of memory": {"location": "/proc/self/mem"},
    "a folder": {"location": "."},
    "a URL": {"location": "http://localhost/x"},
    "long": {"location": "a" * 5000},
    "nameless": {"location": ""},
    "of a NUL": {"location": "real.bin\0x"},
    "missing": {"location": "no.bin"},
    "itself": {"location": "m.onnx"},
    "of a huge offset": {"location": "real.bin", "offset": 2**60},
    "of a negative offset": {"location": "real.bin", "offset": -4},
    "of a huge length": {"location": "real.bin", "length": 2**60},
    "of a negative length": {"location": "real.bin", "length": -8},
    "short": {"location": "real.bin", "length": 3},
    "of an offset in words": {"location": "real.bin", "offset": "abc"},
}


def _name(place: str, name: str) -> Change:
    def change(model: ModelProto) -> None:
        graph, (conv, relu) = model.graph, model.graph.node
        if place == "input":
            graph.input[0].name = conv.input[0] = name
        elif place == "weight":
            graph.initializer[0].name = conv.input[1] = name
        elif place == "tensor":
            conv.output[0] = relu.input[0] = conv.name = name
        else:
            graph.output[0].name = relu.output[0] = name

    return change


def _dimension(place: str, axis: int, size: int) -> Change:
    def change(model: ModelProto) -> None:
        if place == "input":
            model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
        else:
            model.graph.initializer[0].dims[axis] = size

    return change


def _attribute(name: str, count: int, number: int) -> Change:
    def change(model: ModelProto) -> None:
        conv = model.graph.node[0]
        for old in [one for one in conv.attribute if one.name == name]:
            conv.attribute.remove(old)
        conv.attribute.append(helper.make_attribute(name, [number] * count if count else number))

    return change


def _data_type(number: int) -> Change:
    return lambda model: setattr(model.graph.initializer[0], "data_type", number)


def _external(told: dict[str, object]) -> Change:
    def change(model: ModelProto) -> None:
        filters = model.graph.initializer[0]
        filters.ClearField("raw_data")
        filters.data_location = TensorProto.EXTERNAL
        for key, value in told.items():
            filters.external_data.add(key=key, value=str(value))

    return change


def _bomb(model: ModelProto) -> None:
    """Functions that call one another twice each, thirty deep."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]
    for depth in range(30):
        called = {"op_type": f"F{depth - 1}", "domain": "f"} if depth else {"op_type": "Relu"}
        body = [helper.make_node(inputs=[a], outputs=[b], **called) for a, b in (("a", "b"), ("b", "c"))]
        model.functions.append(helper.make_function("f", f"F{depth}", ["a"], ["c"], body, opset))
    model.functions.append(
        helper.make_function("f", "Own", ["a"], ["b"], [helper.make_node("Own", ["a"], ["b"], domain="f")], opset)
    )
    model.opset_import.append(helper.make_opsetid("f", 1))
    model.graph.node[1].CopyFrom(helper.make_node("F29", ["c"], ["y"], domain="f"))


OTHERS: dict[str, Change] = {
    "a bomb of functions": _bomb,
    "a function of itself": lambda m: (_bomb(m), setattr(m.graph.node[1], "op_type", "Own")),
    "no inputs": lambda m: m.graph.ClearField("input"),
    "no outputs": lambda m: m.graph.ClearField("output"),
    "no nodes": lambda m: m.graph.ClearField("node"),
    "no opset": lambda m: m.ClearField("opset_import"),
    "a huge version": lambda m: setattr(m, "ir_version", 2**62),
    "an opset of 999": lambda m: setattr(m.opset_import[0], "version", 999),
    "a negative opset": lambda m: setattr(m.opset_import[0], "version", -5),
    "a cycle": lambda m: m.graph.node[0].input.__setitem__(0, "y"),
    "an operator that is none": lambda m: setattr(m.graph.node[1], "op_type", "Frobnicate"),
    "another domain": lambda m: setattr(m.graph.node[0], "domain", "evil"),
    "a tensor made twice": lambda m: m.graph.node.append(helper.make_node("Relu", ["c"], ["y"])),
    "weights twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "too few bytes": lambda m: setattr(m.graph.initializer[0], "raw_data", b"abc"),
    "a million nodes' worth of names": lambda m: m.graph.node[0].input.extend(["x"] * 200_000),
    "an input without a type": lambda m: m.graph.input[0].ClearField("type"),
    "no shape": lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
}


def onnx_cases() -> Iterator[Hostile]:
    """All of them."""
    changes: dict[str, Change] = dict(OTHERS)
    for place, name in product(("input", "weight", "tensor", "output"), NAMES):
        changes[f"{place} named {name[:12]!a}"] = _name(place, name)
    for place, axis, size in product(("input", "weights"), range(4), NUMBERS):
        changes[f"{place} of {size} along {axis}"] = _dimension(place, axis, size)
    for (name, count), number in product(ATTRIBUTES.items(), NUMBERS):
        changes[f"{name} of {number}"] = _attribute(name, count, number)
    for number in (0, *range(2, 27), 99, -1):
        changes[f"weights of type {number}"] = _data_type(number)
    for what, told in EXTERNAL.items():
        changes[f"weights elsewhere, {what}"] = _external(told)
    for what, change in changes.items():
        yield Hostile(f"onnx: {what}", _inspected(change), Right.EITHER)


def _inspected(change: Change) -> Callable[[Path], list[object]]:
    def write(folder: Path) -> list[object]:
        model = _valid()
        change(model)
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        (folder / "real.bin").write_bytes(bytes(4 * 36))
        return ["inspect", folder / "m.onnx", "--json"]

    return write
