"""Blocks as they run amid a network. How many channels make a block of the layout is the CPU's choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.ort.ort_runtime import OnnxEngine, OnnxRuntime

ISOLATED = BuildOptions(isolated=True)
P1 = (1, 1, 1, 1)
SAME16 = Geometry(16, 16, (3, 3), padding=P1)

BLOCKS = {
    "same": Signature(2, (16, 28, 28), SAME16, activation="relu"),
    "stride": Signature(2, (16, 28, 28), Geometry(16, 32, (3, 3), (2, 2), P1), activation="relu"),
    "small": Signature(2, (64, 7, 7), Geometry(64, 64, (3, 3), padding=P1), activation="relu"),
    "depthwise": Signature(2, (32, 14, 14), Geometry(32, 32, (3, 3), padding=P1, groups=32), activation="relu6"),
    "pointwise": Signature(2, (32, 14, 14), Geometry(32, 64, (1, 1)), bias=False),
    "stem": Signature(2, (1, 28, 28), Geometry(1, 16, (3, 3), padding=P1), activation="relu"),
    "residual": Signature(2, (16, 28, 28), SAME16, residual=True, activation="relu"),
    "hardswish": Signature(2, (16, 28, 28), SAME16, residual=True, activation="hardswish"),
    "odd channels": Signature(2, (20, 14, 14), Geometry(20, 20, (3, 3), padding=P1), residual=True, activation="relu"),
    "uneven": Signature(2, (16, 14, 14), Geometry(16, 16, (3, 5), padding=(2, 1, 0, 3), dilation=(2, 1))),
}
OTHERS = {
    "grouped": Signature(2, (16, 14, 14), Geometry(16, 16, (3, 3), padding=P1, groups=4), residual=True),
    "narrow": Signature(2, (10, 14, 14), Geometry(10, 10, (3, 3), padding=P1), residual=True, activation="relu"),
    "head": Signature(2, (16, 14, 14), Geometry(16, 1, (3, 3), padding=P1)),
    "elu": Signature(2, (16, 14, 14), SAME16, activation="elu(1)"),
    "silu": Signature(2, (16, 14, 14), SAME16, activation="silu"),
    "pooling": Signature(2, (16, 14, 14), Geometry(16, 16, (3, 3), (2, 2), P1, groups=16), bias=False, pooling=True),
    "addition": Signature(2, (16, 14, 14), None, residual=True, activation="relu"),
    "activation": Signature(2, (16, 14, 14), None, activation="tanh"),
}


def operators(engine: OnnxEngine, folder: Path) -> list[str]:
    engine.save(folder / "engine.onnx")
    return [node.op_type for node in onnx.load(folder / "engine.onnx").graph.node]


def uses_blocked_layout(folder: Path) -> bool:
    plain = OnnxRuntime().build(candidate_model(BLOCKS["same"]), BuildOptions())
    return "ReorderInput" in operators(plain, folder)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_convolution_amid_others_is_one_node_without_reorders(name: str, tmp_path: Path) -> None:
    if not uses_blocked_layout(tmp_path):
        pytest.skip("ONNX Runtime has no blocked layout on this CPU")
    engine = OnnxRuntime().build(candidate_model(BLOCKS[name]), ISOLATED)
    assert operators(engine, tmp_path) == ["Conv"], "epilogue and residual are fused, reorders are cut"


@pytest.mark.parametrize("name", BLOCKS | OTHERS)
def test_an_isolated_block_computes_what_the_block_does(name: str) -> None:
    signature = (BLOCKS | OTHERS)[name]
    model, random = candidate_model(signature), np.random.default_rng(3)
    plain, alone = OnnxRuntime().build(model, BuildOptions()), OnnxRuntime().build(model, ISOLATED)
    inputs = {key: random.standard_normal(shape).astype(np.float32) for key, shape in plain.inputs.items()}
    expected = plain.run(inputs)["output"]
    blocked = alone.run({key: to_layout(array, alone.inputs[key]) for key, array in inputs.items()})["output"]
    np.testing.assert_allclose(from_layout(blocked, expected.shape), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BLOCKS | OTHERS)
def test_names_and_images_stay_and_it_can_be_timed(name: str) -> None:
    signature = (BLOCKS | OTHERS)[name]
    engine = OnnxRuntime().build(candidate_model(signature), ISOLATED)
    assert list(engine.inputs) == ["input", "residual"][: 1 + signature.residual] and list(engine.outputs) == ["output"]
    assert engine.outputs["output"][2:] == signature.output_shape[1:]
    assert (engine.time(3) > 0).all()


def test_a_residual_shares_its_memory_with_the_sum_only_while_timing() -> None:
    engine = OnnxRuntime().build(candidate_model(BLOCKS["residual"]), ISOLATED)
    inputs = {name: np.ones(shape, np.float32) for name, shape in engine.inputs.items()}
    before = engine.run(inputs)["output"]
    engine.time(5)
    np.testing.assert_array_equal(engine.run(inputs)["output"], before)


def test_a_sum_is_timed_in_the_memory_of_the_residual_as_in_a_network(tmp_path: Path) -> None:
    if not uses_blocked_layout(tmp_path):
        pytest.skip("ONNX Runtime has no blocked layout on this CPU")
    signature = Signature(1, (16, 8, 8), SAME16, residual=True)
    engine = OnnxRuntime().build(candidate_model(signature), ISOLATED)
    sums = []
    for _ in range(3):
        engine.time(1)
        sums.append(engine._binding.copy_outputs_to_cpu()[0])
    np.testing.assert_allclose(sums[2] - sums[1], sums[1] - sums[0], atol=1e-4)
    assert np.abs(sums[1] - sums[0]).max() > 0.1, "each run adds the convolution once more"


def test_an_isolated_block_can_be_saved_and_loaded(tmp_path: Path) -> None:
    engine = OnnxRuntime().build(candidate_model(BLOCKS["same"]), ISOLATED)
    engine.save(tmp_path / "block.onnx")
    again = OnnxRuntime().load(tmp_path / "block.onnx", ISOLATED)
    assert dict(again.inputs) == dict(engine.inputs) and dict(again.outputs) == dict(engine.outputs)


def test_what_is_no_image_runs_as_it_is(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, [2, 8])],
        [value("y", onnx.TensorProto.FLOAT, [2, 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert operators(OnnxRuntime().build(model, ISOLATED), tmp_path) == ["Relu"]


def block_size() -> int:
    """Channels to a block of the layout on this CPU: what a single channel is padded to."""
    lone = Signature(1, (1, 4, 4), None, residual=True)
    return OnnxRuntime().build(candidate_model(lone), ISOLATED).inputs["input"][1]


def to_layout(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pad the channels and move each block of them innermost; an input whose channels are no whole blocks is plain."""
    block, (n, c, h, w) = block_size(), shape
    if c % block:
        return array
    padded = np.pad(array, ((0, 0), (0, c - array.shape[1]), (0, 0), (0, 0)))
    return padded.reshape(n, c // block, block, h, w).transpose(0, 1, 3, 4, 2).reshape(shape).copy()


def from_layout(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of ``to_layout``."""
    block, (n, c, h, w) = block_size(), array.shape
    if c % block:
        return array
    plain = array.reshape(n, c // block, h, w, block).transpose(0, 1, 4, 2, 3).reshape(n, c, h, w)
    return plain[:, : shape[1]]
