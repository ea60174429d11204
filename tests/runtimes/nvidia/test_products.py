from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trt_layermerge.runtimes.nvidia.products import as_convolutions

BATCH, CHANNELS, CLASSES = 3, 5, 4


def model(node, weights, bias=None, *, rank=2, opset=18) -> onnx.ModelProto:
    """A pool and a classifier; the batch is open."""
    constants = [numpy_helper.from_array(weights, "w")]
    if bias is not None:
        constants.append(numpy_helper.from_array(bias, "b"))
    element = helper.np_dtype_to_tensor_dtype(weights.dtype)
    shape = ["batch", CHANNELS, 2, 2] if rank == 2 else ["batch", 2, CHANNELS]
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    graph = helper.make_graph(
        [*nodes, node] if rank == 2 else [helper.make_node("Relu", ["x"], ["f"]), node],
        "classifier",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, ["batch", CLASSES] if rank == 2 else None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def outputs(proto: onnx.ModelProto) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else BATCH for size in session.get_inputs()[0].shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return session.run(None, {"x": x})[0]


def operators(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@given(
    transposed=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25, 0.0]),
    bias=st.sampled_from([None, (CLASSES,), (1, CLASSES), (1,), ()]),
    opset=st.sampled_from([11, 13, 18]),
)
def test_any_classifier_computes_the_same_as_a_convolution(transposed, alpha, beta, bias, opset) -> None:
    weights = random(CLASSES, CHANNELS) if transposed else random(CHANNELS, CLASSES)
    names = ["f", "w"] if bias is None else ["f", "w", "b"]
    node = helper.make_node("Gemm", names, ["y"], "fc", transB=int(transposed), alpha=alpha, beta=beta)
    before = model(node, weights, None if bias is None else random(*bias), opset=opset)
    kept = before.SerializeToString()
    after = as_convolutions(before)
    assert operators(after) == ["GlobalAveragePool", "Flatten", "Reshape", "Conv", "Reshape"]
    assert before.SerializeToString() == kept, "the caller's model is left alone"
    onnx.checker.check_model(after, full_check=True)
    assert {tensor.name for tensor in after.graph.initializer}.isdisjoint({"w", "b"})
    np.testing.assert_allclose(outputs(after), outputs(before), rtol=1e-5, atol=1e-6)


def test_a_product_without_a_bias_is_one_too() -> None:
    before = model(helper.make_node("MatMul", ["f", "w"], ["y"]), random(CHANNELS, CLASSES))
    after = as_convolutions(before)
    assert "MatMul" not in operators(after)
    np.testing.assert_allclose(outputs(after), outputs(before), rtol=1e-5, atol=1e-6)


def test_weights_that_are_read_twice_stay_for_the_other_reader() -> None:
    before = model(helper.make_node("MatMul", ["f", "w"], ["y"]), random(CHANNELS, CLASSES))
    before.graph.node.append(helper.make_node("Relu", ["w"], ["z"]))
    before.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    assert "w" in {tensor.name for tensor in as_convolutions(before).graph.initializer}


@pytest.mark.parametrize(
    ("node", "weights", "rank"),
    [
        (helper.make_node("Gemm", ["f", "w"], ["y"], transA=1), random(BATCH, CLASSES), 2),
        (helper.make_node("MatMul", ["f", "w"], ["y"]), random(CHANNELS, CLASSES), 3),
        (helper.make_node("MatMul", ["f", "w"], ["y"]), random(CHANNELS, CLASSES).astype(np.float16), 2),
        (helper.make_node("MatMul", ["f", "w"], ["y"]), random(CHANNELS), 2),
        (helper.make_node("MatMul", ["w", "f"], ["y"]), random(CLASSES, BATCH), 2),
    ],
)
def test_what_is_no_classifier_is_left_to_the_compiler(node, weights, rank) -> None:
    before = model(node, weights, rank=rank)
    assert as_convolutions(before).SerializeToString() == before.SerializeToString()
