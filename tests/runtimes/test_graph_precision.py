from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.graph_precision import graph_precision, require_precision
from trt_layermerge.testing.runtimes import small_model


def written_in(precision: str) -> onnx.ModelProto:
    """relu(conv) with weights in this precision; the input is float32, as a delivery's is."""
    weights = np.ones((4, 3, 3, 3))
    constants, nodes, reads = [], [], ["x", "w"]
    if precision == "fp16":
        constants = [numpy_helper.from_array(weights.astype(np.float16), "w")]
        nodes, reads = [helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16)], ["half", "w"]
    elif precision == "int8":
        scale, zero = np.float32(0.1), np.int8(0)
        constants = [numpy_helper.from_array(np.array(value), name) for value, name in ((scale, "s"), (zero, "z"))]
        constants.append(numpy_helper.from_array(weights.astype(np.int8), "w8"))
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["x8"]),
            helper.make_node("DequantizeLinear", ["x8", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w8", "s", "z"], ["w"]),
        ]
        reads = ["xd", "w"]
    graph = helper.make_graph(
        [*nodes, helper.make_node("Conv", reads, ["y"])],
        precision,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reads_the_precision_off_the_weights(precision) -> None:
    assert graph_precision(written_in(precision)) == precision
    assert graph_precision(small_model()) == "fp32"


def test_weights_that_are_computed_count_as_what_they_are() -> None:
    proto = small_model()
    proto.graph.initializer[0].name = "source"
    proto.graph.node.insert(0, helper.make_node("Identity", ["source"], ["w"]))
    assert graph_precision(proto) == "fp32"


def test_without_a_convolution_the_inputs_tell() -> None:
    proto = small_model()
    del proto.graph.node[:]
    proto.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    assert graph_precision(proto) == "fp32"
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelError, match="none of the known precisions"):
        graph_precision(proto)


@pytest.mark.parametrize("claimed", ["fp16", "int8"])
def test_a_claim_is_compared_with_the_graph(claimed) -> None:
    require_precision(small_model(), "fp32")
    with pytest.raises(ModelError, match=f"written in fp32, not in {claimed}") as caught:
        require_precision(small_model(), claimed)
    assert caught.value.hint is not None and "--precision fp32" in caught.value.hint


def test_a_model_that_nothing_can_be_inferred_of_is_refused() -> None:
    model = small_model()
    del model.opset_import[:]
    with pytest.raises(ModelError, match=r"types of net\.onnx contradict each other: .*\n  hint: "):
        graph_precision(model, "net.onnx")
