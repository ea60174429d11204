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


def write(nodes: Nodes, weights: dict[str, np.ndarray], *, times: bool = False) -> onnx.ModelProto:
    """A model of nodes ``(operator, inputs, output)`` on images of 6x6; convolutions keep the size.

    ``times`` adds an input of that name: a whole number for each image, which ``Cast`` makes a real one.
    """
    made = []
    for number, (operator, inputs, output) in enumerate(nodes):
        attributes = {}
        if operator == "Conv":
            attributes = {"pads": [weights[inputs[1]].shape[2] // 2] * 4}
        if operator == "Cast":
            attributes = {"to": onnx.TensorProto.FLOAT}
        made.append(helper.make_node(operator, inputs, [output], f"node_{number}", **attributes))
    given = [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, ["batch", CHANNELS, 6, 6])]
    if times:
        given.append(helper.make_tensor_value_info("times", onnx.TensorProto.INT64, ["batch", 1, 1, 1]))
    graph = helper.make_graph(
        made,
        "small",
        given,
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


def timed() -> onnx.ModelProto:
    """A convolution of the image, plus those of the sines and cosines of a time step at four rates."""
    random = np.random.default_rng(0)
    weights = {"image.weight": random.standard_normal((4, 4, 3, 3)) / 6}
    weights["rates"] = 0.7 ** np.arange(1.0, 5.0).reshape(4, 1, 1)
    weights |= {f"{name}.weight": random.standard_normal((4, 4, 1, 1)) / 2 for name in ("sine", "cosine")}
    nodes = [
        ("Cast", ["times"], "time"),
        ("Mul", ["time", "rates"], "angle"),
        ("Sin", ["angle"], "sin"),
        ("Cos", ["angle"], "cos"),
        ("Conv", ["sin", "sine.weight"], "sine"),
        ("Conv", ["cos", "cosine.weight"], "cosine"),
        ("Add", ["sine", "cosine"], "shift"),
        ("Conv", ["input", "image.weight"], "image"),
        ("Add", ["image", "shift"], "output"),
    ]
    return write(nodes, weights, times=True)


def images(count: int = 24, batch: int = 8, scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    drawn = scale * random.standard_normal((count // batch, batch, CHANNELS, 6, 6))
    return [{"input": values} for values in drawn.astype(np.float32)]


@pytest.fixture(name="write", scope="session")
def _write() -> Write:
    return write


@pytest.fixture(name="residual", scope="session")
def _residual() -> Write:
    return residual


@pytest.fixture(name="timed", scope="session")
def _timed() -> Callable[..., onnx.ModelProto]:
    return timed


@pytest.fixture(name="images", scope="session")
def _images() -> Callable[..., list[dict[str, np.ndarray]]]:
    return images
