"""Small ONNX models, written by hand, and what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from trt_layermerge.network.onnx_import.onnx_graph import read_graph
from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork

Weights = dict[str, np.ndarray]
RNG = np.random.default_rng(1)


def floats(*shape: int) -> np.ndarray:
    """Numbers at random, others each time."""
    return RNG.standard_normal(shape).astype(np.float32)


def make(
    nodes: Sequence[onnx.NodeProto],
    weights: Weights | None = None,
    shape: Sequence[int | str] = ("batch", 3, 8, 10),
    opset: int = 18,
    **more: Any,
) -> onnx.ModelProto:
    """A model from ``x`` to ``y``."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(
        nodes,
        "hand-written",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
        **more,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one(
    op: str, *settings: Any, opset: int = 18, shape: Sequence[int | str] = ("batch", 3, 8, 10), **attributes: Any
) -> onnx.ModelProto:
    """A model of one node; its inputs but the first are constants."""
    names = ["" if value is None else f"w{i}" for i, value in enumerate(settings)]
    weights = {name: np.asarray(value) for name, value in zip(names, settings, strict=True) if value is not None}
    return make([helper.make_node(op, ["x", *names], ["y"], name="it", **attributes)], weights, shape, opset)


def imported(model: onnx.ModelProto) -> OnnxNetwork:
    return OnnxNetwork(read_graph(model, "net.onnx"), "net.onnx").eval()


def runtime(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def images(model: onnx.ModelProto, batch: int = 2) -> np.ndarray:
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    drawn = np.random.default_rng(0).standard_normal((batch, *sizes[1:]))
    return drawn.astype(np.float32)


def assert_same(model: onnx.ModelProto, batch: int = 2) -> OnnxNetwork:
    """The importer's module computes what ONNX Runtime does, in float64 too."""
    module, x = imported(model), images(model, batch)
    expected = runtime(model, x)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)).numpy(), expected, rtol=1e-5, atol=1e-5)
        wide = imported(model).double()(torch.from_numpy(x).double())
    assert wide.dtype == torch.float64
    np.testing.assert_allclose(wide.numpy(), expected, rtol=1e-5, atol=1e-5)
    return module
