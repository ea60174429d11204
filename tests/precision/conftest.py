"""Small models written node by node, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

Nodes = Sequence[tuple[str, Sequence[str], str]]
Write = Callable[..., onnx.ModelProto]
CHANNELS = 4


def write(nodes: Nodes, weights: dict[str, np.ndarray], channels: int = CHANNELS) -> onnx.ModelProto:
    """A model of nodes ``(operator, inputs, output)`` on images of 6x6; convolutions keep the size."""
    made = []
    for number, (operator, inputs, output) in enumerate(nodes):
        attributes = {}
        if operator == "Conv":
            attributes = {"pads": [weights[inputs[1]].shape[2] // 2] * 4}
        made.append(helper.make_node(operator, inputs, [output], f"node_{number}", **attributes))
    shape = ["batch", channels, 6, 6]
    graph = helper.make_graph(
        made,
        "small",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def residual(*, projection: bool = False) -> onnx.ModelProto:
    """A stem, a branch of two convolutions beside the identity or a projection, and one more convolution."""
    random = np.random.default_rng(0)
    weights = {f"{name}.weight": random.standard_normal((4, 4, 3, 3)) / 6 for name in ("stem", "a", "b", "last")}
    weights |= {f"{name}.bias": random.standard_normal(4) / 10 for name in ("stem", "a", "b", "last")}
    weights["skip.weight"] = random.standard_normal((4, 4, 1, 1)) / 2
    nodes = [
        ("Conv", ["input", "stem.weight", "stem.bias"], "stem"),
        ("Relu", ["stem"], "x"),
        ("Conv", ["x", "a.weight", "a.bias"], "a"),
        ("Relu", ["a"], "a_relu"),
        ("Conv", ["a_relu", "b.weight", "b.bias"], "b"),
        *([("Conv", ["x", "skip.weight"], "skip")] if projection else []),
        ("Add", ["b", "skip" if projection else "x"], "sum"),
        ("Relu", ["sum"], "y"),
        ("Conv", ["y", "last.weight", "last.bias"], "last"),
        ("GlobalAveragePool", ["last"], "output"),
    ]
    if not projection:
        del weights["skip.weight"]
    return write(nodes, weights)


def images(count: int = 24, batch: int = 8) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return list(random.standard_normal((count // batch, batch, CHANNELS, 6, 6)).astype(np.float32))


@pytest.fixture(name="write", scope="session")
def _write() -> Write:
    return write


@pytest.fixture(name="residual", scope="session")
def _residual() -> Write:
    return residual


@pytest.fixture(name="images", scope="session")
def _images() -> Callable[..., list[np.ndarray]]:
    return images
