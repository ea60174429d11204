from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import ModelError
from trt_layermerge.estimation.workload import MemoryOperation, Workload
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.estimated.gpu_kernels import gpu_kernels
from trt_layermerge.runtimes.registry import get_runtime

PIXELS = 2 * 8 * 16 * 16
"""Elements of every tensor of 8 channels here."""


def _model(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str] = ("y",), dtype: type = np.float32
) -> onnx.ModelProto:
    """Nodes on the image ``x`` (2, 8, 16, 16), with weights ``w`` (3x3), ``p`` (1x1), ``d`` (depthwise), ``m``."""
    random = np.random.default_rng(0)
    shapes = {
        "w": (8, 8, 3, 3),
        "p": (8, 8, 1, 1),
        "d": (8, 1, 3, 3),
        "m": (8 * 16 * 16, 10),
        "c": (8, 1, 1),
        "v": (8, 8, 1, 1, 1),
    }
    weights = [numpy_helper.from_array(random.standard_normal(shape).astype(dtype), n) for n, shape in shapes.items()]
    weights += [numpy_helper.from_array(np.array([2, -1]), "flat"), numpy_helper.from_array(np.array([2]), "axis")]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, [2, 8, 16, 16])],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _conv(source: str, target: str, weights: str = "w", **more: object) -> onnx.NodeProto:
    pads = {} if weights == "p" else {"pads": [1, 1, 1, 1]}
    return helper.make_node("Conv", [source, weights], [target], **{**pads, **more})


PLAIN = Workload(2, 8, 8, 16, 16, (3, 3), padding=(1, 1, 1, 1))


def _node(kind: str, sources: str, target: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, sources.split(), [target], **attributes)


@pytest.mark.parametrize(
    ("nodes", "work"),
    [
        ([_conv("x", "y")], [PLAIN]),
        ([_conv("x", "a"), _node("Relu", "a", "y")], [PLAIN]),
        ([_conv("x", "a"), _node("Sigmoid", "a", "b"), _node("Mul", "a b", "y")], [PLAIN]),
        ([_conv("x", "a"), _node("Mul", "a c", "b"), _node("Clip", "b", "y")], [PLAIN]),
        (
            [_conv("x", "a"), _node("Add", "a x", "b"), _node("Relu", "b", "y")],
            [Workload(2, 8, 8, 16, 16, (3, 3), padding=(1, 1, 1, 1), residual=True)],
        ),
        (
            [_conv("x", "y", "d", group=8, strides=[2, 2], dilations=[1, 1])],
            [Workload(2, 8, 8, 16, 16, (3, 3), (2, 2), (1, 1, 1, 1), groups=8)],
        ),
        (
            [_node("Conv", "x w", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
            [Workload(2, 8, 8, 16, 16, (3, 3), (2, 2), (0, 0, 1, 1))],
        ),
        (
            [_node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])],
            [MemoryOperation(PIXELS, PIXELS // 4)],
        ),
        (
            [_node("Reshape", "x flat", "a"), _node("MatMul", "a m", "y")],
            [Workload(2, 8 * 16 * 16, 10, 1, 1, (1, 1))],
        ),
        (
            [_node("Relu", "x", "a"), _node("Tanh", "a", "y")],
            [MemoryOperation(PIXELS, PIXELS)],
        ),
        (
            [_node("Softmax", "x", "y")],
            [MemoryOperation(2 * PIXELS, PIXELS, kernels=2)],
        ),
    ],
)
def test_what_is_executed(nodes: list[onnx.NodeProto], work: list[object]) -> None:
    assert list(gpu_kernels(_model(nodes))) == work


def test_a_tensor_that_a_fused_kernel_gives_away_twice_is_written_twice() -> None:
    """A pre-activation skip: the convolution writes what it computed, and what its activation made of it."""
    nodes = [_conv("x", "a"), _node("Relu", "a", "b"), _conv("b", "e", "p"), _node("Add", "e a", "y")]
    first, more, second = gpu_kernels(_model(nodes))
    assert first == PLAIN and more == MemoryOperation(0, PIXELS, kernels=0)
    assert isinstance(second, Workload) and second.residual and second.kernel == (1, 1)


def test_precision_is_that_of_the_tensors() -> None:
    (half,) = gpu_kernels(_model([_conv("x", "y")], dtype=np.float16))
    assert isinstance(half, Workload) and half.precision == "fp16"
    assert {one.precision for one in gpu_kernels(candidate_model(_signature("int8")))} == {"int8"}


def test_what_cannot_be_known_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be known"):
        gpu_kernels(_model([_node("Rleu", "x", "a"), _conv("a", "y")]))
    with pytest.raises(ModelError, match="dimensions"):
        gpu_kernels(_model([_node("Unsqueeze", "x axis", "a"), _node("Conv", "a v", "y")]))


def _signature(precision: str = "fp32", **about: object) -> Signature:
    geometry = Geometry(16, 16, (3, 3), padding=(1, 1, 1, 1))
    return Signature(8, (16, 14, 14), geometry, precision=precision, **{"activation": "relu", **about})


@pytest.mark.parametrize(
    "signature",
    [
        *(_signature(precision, residual=residual) for precision in ("fp32", "fp16", "int8") for residual in (0, 1)),
        *(_signature(activation=name) for name in ("silu", "gelu", "mish", "hardswish", "prelu", "leaky_relu(0.1)")),
        _signature(shift=True, group_norm=4),
        Signature(8, (16, 14, 14), None, residual=True, activation="relu"),
        Signature(8, (16, 14, 14), None, activation="silu"),
        Signature(8, (16, 14, 14), None, group_norm=4, activation="silu"),
        Signature(8, (16, 14, 14), Geometry(16, 16, (2, 2), (2, 2), groups=16), pooling=True),
    ],
    ids=lambda one: one.key,
)
def test_every_signature_gets_a_latency_within_reason(signature: Signature) -> None:
    """More than a launch and less than a millisecond, whatever there is of it."""
    runtime, options = get_runtime("estimate:rtx-2080-ti"), BuildOptions(precision=signature.precision, isolated=True)
    engine = runtime.build(candidate_model(signature), options)
    assert 2_000 <= engine.time(1)[0] < 1_000_000
    assert "uncalibrated" in (runtime.doubt(engine) or "")


def test_a_network_is_the_sum_of_its_blocks_and_one_run_of_an_engine() -> None:
    """What a block costs amid its network is no more than the network gets slower by it."""
    runtime = get_runtime("estimate:rtx-2080-ti")
    nodes = [_conv("x", "a"), _node("Relu", "a", "b"), _conv("b", "e", "p"), _conv("e", "y", "d", group=8)]
    amid, whole = BuildOptions(isolated=True), BuildOptions()
    parts = [
        _model([_conv("x", "y", weights, **more)]) for weights, more in (("w", {}), ("p", {}), ("d", {"group": 8}))
    ]
    blocks = sum(int(runtime.build(part, amid).time(1)[0]) for part in parts)
    assert int(runtime.build(_model(nodes), whole).time(1)[0]) - blocks == 15_000
    assert int(runtime.build(_model(nodes), amid).time(1)[0]) == blocks


def test_times_are_the_estimate_and_known_shapes_are_no_doubt() -> None:
    runtime, options = get_runtime("estimate:rtx-2080-ti"), BuildOptions(isolated=True)
    signature = Signature(128, (96, 28, 28), Geometry(96, 96, (3, 3), padding=(1, 1, 1, 1)), activation="relu")
    engine = runtime.build(candidate_model(signature), options)
    assert runtime.doubt(engine) is None and len(set(engine.time(5).tolist())) == 1
    other = get_runtime("estimate:t4")
    assert "transferred" in (other.doubt(other.build(candidate_model(signature), options)) or "")
