from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.precision.casting import in_half
from trt_layermerge.precision.float_tensors import constants
from trt_layermerge.precision.observe import observe
from trt_layermerge.precision.rounding import rounded

HALF, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
NODES = 9


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, NODES - 1)))
def test_what_stays_in_full_is_float_and_all_else_half(residual: Any, numbers: set[int]) -> None:
    model = residual()
    assert len(model.graph.node) == NODES
    half = in_half(model, {f"node_{number}" for number in numbers})
    found = types(half)
    for number, node in enumerate(model.graph.node[:-1]):
        assert found[node.output[0]] == (FLOAT if number in numbers else HALF), "tensors keep their names"
    assert found["input"] == found["output"] == FLOAT
    casts = sum(node.op_type == "Cast" for node in half.graph.node)
    assert casts <= 1 + 2 * min(len(numbers), NODES - len(numbers)) + 2, "no cast between two of a kind"


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, NODES - 1)))
def test_what_is_rounded_is_what_is_half(residual: Any, images: Any, numbers: set[int]) -> None:
    model = residual()
    half = in_half(model, {f"node_{number}" for number in numbers})
    names = [node.output[0] for node in model.graph.node]
    (values,) = observe(rounded(half), names, images(8))
    for number, name in enumerate(names):
        halves = values[name].astype(np.float16).astype(np.float32)
        assert number in numbers or np.array_equal(values[name], halves)
    if len(numbers) == NODES:
        (exact,) = observe(model, names, images(8))
        assert all(np.array_equal(values[name], exact[name]) for name in names)


def test_roundings_are_computed_and_not_optimised_away(write: Any) -> None:
    weights = {"a.weight": np.full((4, 4, 1, 1), 30000.0), "b.weight": np.full((4, 4, 1, 1), 1e-3)}
    nodes = [("Conv", ["input", "a.weight"], "a"), ("Relu", ["a"], "r"), ("Conv", ["r", "b.weight"], "output")]
    model = write(nodes, weights)
    (values,) = observe(rounded(in_half(model)), ["output"], [{"input": np.ones((1, 4, 6, 6), np.float32)}])
    assert np.isinf(values["output"]).all()
    session = onnxruntime.InferenceSession(in_half(model).SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": np.ones((1, 4, 6, 6), np.float32)})
    assert np.isfinite(output).all(), "should ONNX Runtime round one day, rounding.py can go"


def test_the_interface_is_the_same(residual: Any) -> None:
    model = residual()
    half = in_half(model)
    assert list(half.graph.input) == list(model.graph.input) and list(half.graph.output) == list(model.graph.output)
    assert {value.dtype for value in constants(half).values()} == {np.dtype(np.float16)}
    assert constants(half).keys() == constants(model).keys()


def test_a_constant_of_both_kinds_of_nodes_is_there_twice(write: Any) -> None:
    nodes = [("Clip", ["input", "low"], "a"), ("Conv", ["a", "w.weight"], "b"), ("Clip", ["b", "low"], "output")]
    model = write(nodes, {"low": np.array(0.0), "w.weight": np.ones((4, 4, 1, 1))})
    found = {name: value.dtype for name, value in constants(in_half(model, {"node_2"})).items()}
    assert found == {"low": np.float16, "low/float": np.float32, "w.weight": np.float16}


def test_whole_numbers_stay_what_they_are(write: Any) -> None:
    nodes = [("Conv", ["input", "w.weight"], "a"), ("Shape", ["a"], "shape"), ("Reshape", ["a", "shape"], "output")]
    half = in_half(write(nodes, {"w.weight": np.ones((4, 4, 1, 1))}))
    assert types(half)["shape"] == onnx.TensorProto.INT64
