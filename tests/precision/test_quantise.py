from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from trt_layermerge.errors import ModelError, UsageError, VerificationError
from trt_layermerge.precision import tolerance
from trt_layermerge.precision.convert import convert
from trt_layermerge.precision.float_tensors import constants
from trt_layermerge.precision.quantise import to_int8
from trt_layermerge.runtimes.graph_precision import graph_precision


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize("projection", [False, True])
def test_pairs_are_as_tensorrt_wants_them(residual: Any, images: Any, projection: bool) -> None:
    model = to_int8(residual(projection=projection), images()).model
    values, producer = constants(model), producers(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8 and not values[node.input[2]].any()
    assert not any(value.dtype == np.int32 for value in values.values()), "biases stay float32"
    for node in convolutions(model):
        source, weight = producer[node.input[0]], producer[node.input[1]]
        assert source.op_type == weight.op_type == "DequantizeLinear"
        assert producer[source.input[0]].op_type == "QuantizeLinear" and values[source.input[1]].size == 1
        assert values[weight.input[0]].dtype == np.int8 and values[weight.input[1]].shape == (4,)
        assert [a.i for a in weight.attribute if a.name == "axis"] == [0]


def test_what_a_convolution_is_fused_with_follows_it_directly(residual: Any, images: Any) -> None:
    model = to_int8(residual(), images()).model
    read = {name: node.op_type for node in model.graph.node for name in node.input}
    assert [read[node.output[0]] for node in convolutions(model)] == ["Relu", "Relu", "Add", "GlobalAveragePool"]
    (addition,) = (node for node in model.graph.node if node.op_type == "Add")
    assert [producers(model)[name].op_type for name in addition.input] == ["Conv", "DequantizeLinear"]


def test_of_two_convolutions_that_are_added_one_is_quantised(residual: Any, images: Any) -> None:
    model = to_int8(residual(projection=True), images()).model
    (addition,) = (node for node in model.graph.node if node.op_type == "Add")
    producer = producers(model)
    assert [producer[name].op_type for name in addition.input] == ["Conv", "DequantizeLinear"]
    quantise = producer[producer[addition.input[1]].input[0]]
    assert quantise.op_type == "QuantizeLinear" and quantise.input[0] == "skip"
    read = {name for node in model.graph.node for name in node.input} | {"output"}
    assert all(node.output[0] in read for node in model.graph.node), "nothing is left over"


def test_the_interface_and_the_names_are_kept(residual: Any, images: Any, capfd: Any, caplog: Any) -> None:
    model = residual()
    found = to_int8(model, images())
    assert list(found.model.graph.input) == list(model.graph.input)
    assert [value.name for value in found.model.graph.output] == ["output"]
    assert found.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert graph_precision(found.model) == "int8" and 0 < found.error < 0.1 and found.full == ()
    assert [layer.name for layer in found.layers] == ["stem", "a", "b", "last"]
    assert capfd.readouterr() == ("", "") and caplog.records == []
    assert found.model == to_int8(model, images()).model, "the same inputs calibrate the same scales"


def test_a_classifier_stays_in_float(write: Any, images: Any) -> None:
    nodes = [("Conv", ["input", "a.weight"], "a"), ("GlobalAveragePool", ["a"], "b"), ("Flatten", ["b"], "c")]
    weights = {"a.weight": np.ones((4, 4, 1, 1)), "head.weight": np.ones((4, 3))}
    model = to_int8(write([*nodes, ("MatMul", ["c", "head.weight"], "output")], weights), images()).model
    assert constants(model)["head.weight"].dtype == np.float32


def test_without_a_convolution_there_is_nothing_to_quantise(write: Any, images: Any) -> None:
    with pytest.raises(ModelError, match="no convolution to quantise"):
        to_int8(write([("Relu", ["input"], "output")], {}), images())


def test_too_much_error_is_refused(residual: Any, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tolerance, "OUTPUT_TOLERANCE", {"int8": 1e-9})
    with pytest.raises(VerificationError, match=r"(?s)in int8, .*--precision fp16"):
        to_int8(residual(), images())


def test_precisions_are_chosen_by_name(residual: Any, images: Any) -> None:
    model = residual()
    assert convert(model, "fp32", []).model is model
    assert graph_precision(convert(model, "fp16", images()).model) == "fp16"
    with pytest.raises(UsageError, match="'fp8'"):
        convert(model, "fp8", images())


def test_only_the_first_images_are_compared() -> None:
    batches = [{"input": np.zeros((size, 1), np.float32)} for size in (30, 30, 30, 30)]
    assert len(tolerance.checked(batches)) == 3 and len(tolerance.checked(batches[:1])) == 1
