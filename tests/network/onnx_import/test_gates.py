"""Activations written as arithmetic are found in every order that exporters write them in, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.network.onnx_import.models import assert_same, make
from trt_layermerge.network.onnx_import.gated_products import fuse_activations
from trt_layermerge.network.onnx_import.onnx_graph import read_graph

CONSTANTS = {
    "0": 0.0, "0.5": 0.5, "1": 1.0, "2": 2.0, "3": 3.0, "6": 6.0, "1/6": 1 / 6, "r2": 2**0.5, "1/r2": 0.5**0.5,
    "0.51": 0.51
}  # fmt: skip


def model(text: str) -> onnx.ModelProto:
    """A model from lines such as ``a = Mul x 0.5``."""
    nodes = []
    for line in text.strip().split(";"):
        name, _, call = line.strip().partition(" = ")
        op, *inputs = call.split()
        attributes = {"alpha": 1 / 6} if op == "HardSigmoid" else {}
        nodes.append(helper.make_node(op, inputs, [name], **attributes))
    return make(nodes, {name: np.array(value, np.float32) for name, value in CONSTANTS.items()})


def operators(text: str) -> Sequence[str]:
    return [node.op for node in fuse_activations(read_graph(model(text), "net.onnx")).nodes]


FOUND = {
    "Swish": ["s = Sigmoid x; y = Mul x s", "s = Sigmoid x; y = Mul s x"],
    "HardSwish": [
        "s = HardSigmoid x; y = Mul x s",
        "a = Add x 3; c = Clip a 0 6; m = Mul x c; y = Div m 6",
        "a = Add 3 x; c = Clip a 0 6; d = Div c 6; y = Mul d x",
        "a = Add x 3; c = Clip a 0 6; m = Mul x 1/6; y = Mul m c",
    ],
    "HardSigmoid": ["a = Add x 3; c = Clip a 0 6; y = Div c 6", "a = Add x 3; c = Clip a 0 6; y = Mul 1/6 c"],
    "Mish": ["p = Softplus x; t = Tanh p; y = Mul x t"],
    "Gelu": [
        "d = Div x r2; e = Erf d; a = Add e 1; m = Mul x a; y = Mul m 0.5",
        "d = Div x r2; e = Erf d; a = Add 1 e; m = Mul 0.5 a; y = Mul x m",
        "d = Mul x 1/r2; e = Erf d; a = Add e 1; h = Mul x 0.5; y = Mul h a",
    ],
}


@pytest.mark.parametrize(("op", "text"), [(op, text) for op, texts in FOUND.items() for text in texts])
def test_an_activation_is_found(op: str, text: str) -> None:
    assert operators(text) == [op]
    assert_same(model(text))


@pytest.mark.parametrize("op", FOUND)
def test_an_activation_of_a_scaled_value_is_found(op: str) -> None:
    text = "u = Mul x 2; " + FOUND[op][0].replace(" x", " u")
    assert operators(text) == ["Mul", op]
    assert_same(model(text))


@pytest.mark.parametrize(
    "text",
    [
        "s = Sigmoid x; t = Tanh x; y = Mul t s",
        "s = Sigmoid x; m = Mul x s; y = Add m s",
        "a = Add x 2; c = Clip a 0 6; y = Div c 6",
        "a = Add x 3; c = Clip a 0 3; y = Div c 6",
        "a = Add x 3; c = Clip a 0 6; m = Mul x c; y = Div m 3",
        "d = Div x r2; e = Erf d; a = Add e 1; m = Mul x a; y = Mul m 0.51",
        "d = Div x 2; e = Erf d; a = Add e 1; m = Mul x a; y = Mul m 0.5",
        "s = Sigmoid x; m = Mul s 2; y = Mul x m",
    ],
)
def test_what_only_looks_like_one_computes_the_same(text: str) -> None:
    found = [op for op in operators(text) if op in FOUND]
    assert found == (["Swish"] if "y = Add m s" in text else [])
    assert_same(model(text))
