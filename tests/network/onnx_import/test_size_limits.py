"""Functions of functions, and files that no exporter writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.network.onnx_import.models import make
from trt_layermerge.errors import ModelError
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.onnx_import.onnx_graph import read_graph
from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork
from trt_layermerge.network.onnx_import.size_limits import MOST_NODES, require_bounded
from trt_layermerge.network.source import load_source

node = helper.make_node
OWN = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]


def function(name: str, *called: str) -> onnx.FunctionProto:
    names = ["x", *(f"t{index}" for index in range(1, len(called))), "y"]
    nodes = [
        node(op, [names[index]], [names[index + 1]], domain="" if op == "Relu" else "mine")
        for index, op in enumerate(called)
    ]
    return helper.make_function("mine", name, ["x"], ["y"], nodes, OWN)


def calling(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    model = make([node(functions[-1].name, ["x"], ["y"], domain="mine")])
    model.opset_import.append(OWN[1])
    model.functions.extend(functions)
    return model


def test_functions_of_functions_are_counted_before_they_are_written_out() -> None:
    levels = [function("f0", *["Relu"] * 10)]
    levels += [function(f"f{level}", *[f"f{level - 1}"] * 10) for level in range(1, 30)]
    require_bounded(calling(*levels[:5]), "it")
    assert MOST_NODES == 10**5
    for count in (6, 30):
        with pytest.raises(ModelError, match=f"it has 1{'0' * min(count, 18)} nodes or more; 100000 can be read"):
            require_bounded(calling(*levels[:count]), "it")
        with pytest.raises(ModelError, match="nodes or more"):
            require_bounded(calling(*levels[count - 1 :: -1], function("main", f"f{count - 1}")), "it")


def test_functions_that_call_themselves() -> None:
    for functions in ((function("f", "f"),), (function("f", "g"), function("g", "Relu", "f"), function("h", "Relu"))):
        with pytest.raises(ModelError, match=r"it has a function that calls itself: '[fg]'"):
            require_bounded(calling(*functions), "it")
    require_bounded(calling(function("f", "Relu"), function("g", "f", "f"), function("h", "f", "g")), "it")


WEIGHT = np.ones((3, 3, 1, 1), np.float32)


def conv(weight: onnx.TensorProto | None = None, **attributes: Any) -> onnx.ModelProto:
    model = make([node("Conv", ["x", "w"], ["y"], name="conv", **attributes)], {"w": WEIGHT}, ("batch", 3, 8, 8))
    if weight is not None:
        weight.name = "w"
        model.graph.initializer[0].CopyFrom(weight)
    return model


def tensor(**changed: Any) -> onnx.TensorProto:
    made = numpy_helper.from_array(WEIGHT, "w")
    for name, value in changed.items():
        if name == "dims":
            made.dims[:] = value
        else:
            setattr(made, name, value)
    return made


def outside(**entries: Any) -> onnx.TensorProto:
    made = tensor(data_location=TensorProto.EXTERNAL)
    made.ClearField("raw_data")
    for key, value in entries.items():
        made.external_data.add(key=key, value=str(value))
    return made


def sized(*shape: int) -> onnx.ModelProto:
    model = conv()
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size
    return model


HOSTILE = {
    "external, huge": lambda: conv(outside(location="inside.bin", length=2**60)),
    "external, from far": lambda: conv(outside(location="inside.bin", offset=2**62, length=4)),
    "external, negative": lambda: conv(outside(location="inside.bin", length=-1)),
    "external, no number": lambda: conv(outside(location="inside.bin", length="many")),
    "external, elsewhere": lambda: conv(outside(location="/etc/passwd")),
    "external, above": lambda: conv(outside(location="../inside.bin")),
    "external, a long name": lambda: conv(outside(location="n" * 5000)),
    "external, a NUL": lambda: conv(outside(location="a\0b")),
    "external, nowhere": lambda: conv(outside()),
    "undefined type": lambda: conv(tensor(data_type=0)),
    "unknown type": lambda: conv(tensor(data_type=99)),
    "text": lambda: conv(tensor(data_type=TensorProto.STRING)),
    "too few numbers": lambda: conv(tensor(raw_data=b"1")),
    "huge weight": lambda: conv(tensor(dims=(2**40, 3, 1, 1))),
    "negative weight": lambda: conv(tensor(dims=(-1, 3, 1, 1))),
    "no groups": lambda: conv(group=0),
    "negative groups": lambda: conv(group=-1),
    "no strides": lambda: conv(strides=[0, 0]),
    "negative dilations": lambda: conv(dilations=[-1, -1]),
    "huge padding": lambda: conv(pads=[2**40] * 4),
    "huge image": lambda: sized(2, 3, 2**45, 2**16),
    "image beyond numbers": lambda: sized(2, 3, 2**63 - 1, 8),
    "negative image": lambda: sized(2, 3, -8, 8),
    "impossible reshape": lambda: make([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([-1, 7, 2**62])}),
    "two sizes left open": lambda: make([node("Reshape", ["x", "s"], ["y"])], {"s": np.array([-1, -1])}),
    "expanded beyond memory": lambda: make([node("Expand", ["x", "s"], ["y"])], {"s": np.array([1, 3, 2**40, 8])}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_no_exporter_writes_are_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / "inside.bin").write_bytes(bytes(36))
    path = tmp_path / "net.onnx"
    path.write_bytes(HOSTILE[name]().SerializeToString())
    with pytest.raises(ModelError, match=r"net\.onnx|input") as caught:
        load_network(str(path))
    assert caught.value.exit_code == 3 and len(caught.value.message) < 1000


@pytest.mark.parametrize("content", [b"", b"{", b'{"graph": {}}', b"ir_version: 8\ngraph {\n}\n", b"\xff" * 100])
def test_what_is_no_onnx_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.onnx"):
        load_source(str(tmp_path / "net.onnx"))


NAMES = ["class", "conv.class", "import.os", "None", "self", "self2", "graph", "code", "1a", "len"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_code_cannot_have(name: str) -> None:
    weights = {f"{name}.weight": WEIGHT, f"{name}2.weight": WEIGHT}
    nodes = [
        node("Conv", ["x", f"{name}.weight"], [f"{name}_out"], name=name),
        node("Relu", [f"{name}_out"], [f"{name}_1"], name=f"{name}_1"),
        node("Conv", [f"{name}_1", f"{name}2.weight"], ["y"], name=f"{name}2"),
    ]
    network = trace("it", OnnxNetwork(read_graph(make(nodes, weights), "it"), "it").eval(), (3, 8, 8))
    assert len(network.layers) == 2
