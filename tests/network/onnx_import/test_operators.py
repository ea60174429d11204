"""Every operator computes what ONNX Runtime computes, in any form that an exporter writes it in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.network.onnx_import.models import assert_same, floats, make, one
from trt_layermerge.errors import ModelError
from trt_layermerge.network.onnx_import.onnx_network import SUPPORTED


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def as_floats(op: str, **attributes: Any) -> onnx.ModelProto:
    """What returns whole numbers."""
    nodes = [helper.make_node(op, ["x"], ["i"], **attributes), helper.make_node("Cast", ["i"], ["c"], to=1)]
    return make([*nodes, helper.make_node("Mul", ["c", "x"], ["y"])])


def chosen(op: str, then: str = "") -> onnx.ModelProto:
    """What returns truth values, of a comparison or of one of its results, decides between two images."""
    more = {"Not": [helper.make_node("Not", ["d"], ["c"])], "": [helper.make_node("Identity", ["d"], ["c"])]}
    both = [helper.make_node("Greater", ["x", "z"], ["e"]), helper.make_node(then, ["d", "e"], ["c"])] if then else []
    nodes = [helper.make_node(op, ["x", "w"], ["d"]), *more.get(then, both)]
    return make([*nodes, helper.make_node("Where", ["c", "x", "w"], ["y"])], {"w": f32(0.3), "z": f32(-0.2)})


def recurrent(gates: int, directions: int) -> tuple[np.ndarray, ...]:
    """Weights of 7 inputs and 5 states, and biases."""
    rows = gates * 5
    return floats(directions, rows, 7), floats(directions, rows, 5), floats(directions, 2 * rows)


C3 = (3,)
CASES: dict[str, onnx.ModelProto] = {
    "Abs": one("Abs"),
    "Acos": make([helper.make_node("Tanh", ["x"], ["z"]), helper.make_node("Acos", ["z"], ["y"])]),
    "Asin": make([helper.make_node("Tanh", ["x"], ["z"]), helper.make_node("Asin", ["z"], ["y"])]),
    "Atan": one("Atan"),
    "ArgMax": as_floats("ArgMax", axis=1),
    "ArgMin": as_floats("ArgMin", axis=-1),
    "Conv, of sound": one("Conv", floats(4, 3, 5), floats(4), shape=("batch", 3, 9), pads=[2, 1]),
    "Conv, of volumes": one("Conv", floats(4, 3, 3, 3, 3), shape=("batch", 3, 6, 5, 4), pads=[1] * 6, strides=[2] * 3),
    "Conv, one channel": one("Conv", floats(1, 3, 5), floats(1), shape=("batch", 3, 9), auto_pad="SAME_LOWER"),
    "ConstantOfShape": make(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("ConstantOfShape", ["s"], ["c"], value=helper.make_tensor("v", 1, [1], [0.5])),
            helper.make_node("Add", ["x", "c"], ["y"]),
        ]
    ),
    "ConstantOfShape, of sizes": make(
        [
            helper.make_node("Shape", ["x"], ["s"], start=1),
            helper.make_node("Shape", ["s"], ["r"]),
            helper.make_node("ConstantOfShape", ["r"], ["n"], value=helper.make_tensor("v", 7, [1], [-1])),
            helper.make_node("Neg", ["n"], ["p"]),
            helper.make_node("Mul", ["s", "p"], ["t"]),
            helper.make_node("Concat", ["f", "t"], ["u"], axis=0),
            helper.make_node("Reshape", ["x", "u"], ["y"]),
        ],
        {"f": ints(-1)},
    ),
    "Cosh": one("Cosh"),
    "CumSum": one("CumSum", np.array(2)),
    "Einsum": one("Einsum", floats(5, 3), equation="bchw,oc->bohw"),
    "GRU": one(
        "GRU", *recurrent(3, 2), shape=("batch", 2, 7), hidden_size=5, direction="bidirectional", linear_before_reset=1
    ),
    "LSTM": one("LSTM", *recurrent(4, 2), shape=("batch", 2, 7), hidden_size=5, direction="bidirectional"),
    "LSTM, its activations by name": one(
        "LSTM",
        *recurrent(4, 1),
        shape=("batch", 2, 7),
        hidden_size=5,
        activations=["Sigmoid", "Tanh", "Tanh"],
        direction="forward",
    ),
    "LSTM, backwards": one("LSTM", *recurrent(4, 1)[:2], shape=("batch", 2, 7), hidden_size=5, direction="reverse"),
    "LSTM, a state": one(
        "LSTM", *recurrent(4, 1), None, floats(1, 2, 5), floats(1, 2, 5), shape=("batch", 2, 7), hidden_size=5
    ),
    "RNN": one("RNN", *recurrent(1, 1), shape=("batch", 2, 7), hidden_size=5),
    "GatherElements": one("GatherElements", np.full((2, 2, 8, 10), -1), axis=1),
    "Gather, a matrix": one("Gather", np.array([[2, 0], [1, -1]]), axis=1),
    "Gather, computed": make(
        [helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0), helper.make_node("Gather", ["w", "i"], ["y"])],
        {"w": floats(3, 4)},
    ),
    "GreaterOrEqual": chosen("GreaterOrEqual"),
    "LessOrEqual": chosen("LessOrEqual"),
    "GridSample": make(
        [helper.make_node("Tanh", ["x"], ["g"]), helper.make_node("GridSample", ["w", "g"], ["y"], mode="bilinear")],
        {"w": floats(2, 3, 5, 6)},
        shape=("batch", 4, 4, 2),
    ),
    "LpNormalization": one("LpNormalization", axis=1, p=1, opset=18),
    "Mean": one("Mean", floats(3, 1, 1), floats(1, 1, 10)),
    "MeanVarianceNormalization": one("MeanVarianceNormalization"),
    "Mod": one("Mod", f32(0.7), fmod=1),
    "Not": chosen("Less", "Not"),
    "Or": chosen("Less", "Or"),
    "Xor": chosen("Less", "Xor"),
    "ReduceL1": one("ReduceL1", ints(1)),
    "ReduceL2": one("ReduceL2", ints(1), keepdims=0),
    "ReduceLogSum": make(
        [helper.make_node("Exp", ["x"], ["z"]), helper.make_node("ReduceLogSum", ["z", "w"], ["y"])], {"w": ints(1)}
    ),
    "ReduceLogSumExp": one("ReduceLogSumExp", ints(2, 3)),
    "ReduceSumSquare": one("ReduceSumSquare", opset=11, axes=[2]),
    "Resize, one axis": one("Resize", None, None, ints(15), axes=[3], mode="linear"),
    "Resize, of sound": one("Resize", None, None, ints(2, 3, 15), mode="linear", shape=("batch", 3, 9)),
    "Resize, in proportion": one(
        "Resize", None, None, ints(20, 16), axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"
    ),
    "Round": one("Round"),
    "Shrink": one("Shrink", lambd=0.3, bias=0.1),
    "Sign": one("Sign"),
    "Sinh": one("Sinh"),
    "Slice, backwards": one("Slice", ints(-1, 6), ints(-9, 1), ints(1, 2), ints(-1, -2)),
    "Softsign": one("Softsign"),
    "SpaceToDepth": one("SpaceToDepth", blocksize=2),
    "Tan": one("Tan"),
    "ThresholdedRelu": one("ThresholdedRelu", alpha=0.4),
    "Tile": one("Tile", ints(1, 2, 1, 3)),
    "TopK": make([helper.make_node("TopK", ["x", "k"], ["y", "i"])], {"k": ints(3)}),
    "TopK, its indices": make(
        [
            helper.make_node("TopK", ["x", "k"], ["v", "i"], axis=2),
            helper.make_node("Cast", ["i"], ["c"], to=1),
            helper.make_node("Mul", ["c", "v"], ["y"]),
        ],
        {"k": ints(3)},
    ),
    "MaxPool, of sound": one("MaxPool", kernel_shape=[3], pads=[1, 0], strides=[2], shape=("batch", 3, 9)),
    "AveragePool, of volumes": one("AveragePool", kernel_shape=[2, 2, 2], strides=[1] * 3, shape=("batch", 3, 6, 5, 4)),
    "Add": one("Add", floats(3, 1, 1)),
    "Add, number": one("Add", f32(2.5)),
    "BatchNormalization": one("BatchNormalization", floats(3), floats(3), floats(3), abs(floats(3)), epsilon=1e-3),
    "BatchNormalization, opset 9": one("BatchNormalization", floats(3), floats(3), floats(3), abs(floats(3)), opset=9),
    "Cast": one("Cast", to=onnx.TensorProto.FLOAT),
    "Ceil": one("Ceil"),
    "Celu": one("Celu", alpha=0.7),
    "Clip": one("Clip", f32(-0.5), f32(0.7)),
    "Clip, relu6": one("Clip", f32(0), f32(6)),
    "Clip, below": one("Clip", f32(0)),
    "Clip, above": one("Clip", None, f32(0.3)),
    "Clip, opset 9": one("Clip", opset=9, min=0.0, max=6.0),
    "Concat": one("Concat", floats(2, 5, 8, 10), axis=1),
    "ConvTranspose": one("ConvTranspose", floats(3, 4, 3, 3), floats(4), strides=[2, 2], pads=[1, 1, 1, 1]),
    "DepthToSpace": one("DepthToSpace", blocksize=2, shape=("batch", 8, 4, 5)),
    "DepthToSpace, CRD": one("DepthToSpace", blocksize=2, mode="CRD", shape=("batch", 8, 4, 5)),
    "Div": one("Div", floats(3, 1, 1)),
    "Dropout": one("Dropout"),
    "Dropout, opset 9": one("Dropout", opset=9, ratio=0.3),
    "Elu": one("Elu", alpha=0.5),
    "Erf": one("Erf"),
    "Cos": one("Cos"),
    "Sin": one("Sin"),
    "Exp": one("Exp"),
    "Expand": one("Expand", ints(2, 3, 8, 10), shape=("batch", 3, 1, 10)),
    "Flatten": one("Flatten"),
    "Flatten, 2": one("Flatten", axis=2),
    "Flatten, 0": one("Flatten", axis=0),
    "Floor": one("Floor"),
    "Gather": one("Gather", ints(2, 0), axis=1),
    "Gather, one": one("Gather", np.array(1, np.int64), axis=1),
    "Gelu": one("Gelu", opset=20),
    "Gelu, tanh": one("Gelu", opset=20, approximate="tanh"),
    "GlobalAveragePool": one("GlobalAveragePool"),
    "GlobalMaxPool": one("GlobalMaxPool"),
    "GroupNormalization": one("GroupNormalization", floats(6), floats(6), num_groups=3, opset=21, shape=(2, 6, 4, 5)),
    "HardSigmoid": one("HardSigmoid", alpha=1 / 6),
    "HardSigmoid, 0.2": one("HardSigmoid"),
    "HardSwish": one("HardSwish"),
    "Identity": one("Identity"),
    "InstanceNormalization": one("InstanceNormalization", floats(3), floats(3), epsilon=1e-3),
    "LRN": one("LRN", size=3, alpha=0.1, shape=("batch", 7, 4, 5)),
    "LayerNormalization": one("LayerNormalization", floats(10), floats(10)),
    "LeakyRelu": one("LeakyRelu", alpha=0.2),
    "LogSoftmax": one("LogSoftmax", axis=1),
    "MatMul": one("MatMul", floats(10, 4)),
    "Max": one("Max", floats(3, 1, 1), f32(0.1)),
    "Min": one("Min", floats(3, 1, 1), f32(0.1)),
    "Mish": one("Mish"),
    "Mul": one("Mul", floats(1, 3, 1, 1)),
    "Neg": one("Neg"),
    "PRelu": one("PRelu", floats(3, 1, 1)),
    "PRelu, one": one("PRelu", floats(1)),
    "PRelu, last axis": one("PRelu", floats(10)),
    "Pad": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 3), f32(1.5)),
    "Pad, axes": one("Pad", ints(1, 2, 3, 0), None, ints(3, -2)),
    "Pad, channels": one("Pad", ints(0, 1, 0, 0, 0, 2, 0, 0)),
    "Pad, none": one("Pad", ints(0, 0, 0, 0, 0, 0, 0, 0)),
    "Pad, reflect": one("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect"),
    "Pad, edge": one("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0), mode="edge"),
    "Pad, opset 9": one("Pad", opset=9, pads=[0, 0, 1, 1, 0, 0, 1, 0], value=0.5),
    "Pow": one("Pow", f32(2)),
    "Reciprocal": one("Reciprocal"),
    "ReduceMax": one("ReduceMax", ints(2, 3)),
    "ReduceMean": one("ReduceMean", ints(-1, 2)),
    "ReduceMean, opset 13": one("ReduceMean", opset=13, axes=[2, 3], keepdims=0),
    "ReduceMean, all": one("ReduceMean"),
    "ReduceMean, none": one("ReduceMean", noop_with_empty_axes=1),
    "ReduceMin": one("ReduceMin", ints(1)),
    "ReduceProd": one("ReduceProd", ints(1, 3)),
    "ReduceSum": one("ReduceSum", ints(1), keepdims=0),
    "Relu": one("Relu"),
    "Reshape": one("Reshape", ints(0, -1, 5)),
    "Reshape, free first": one("Reshape", ints(-1, 240)),
    "Resize, scales": one("Resize", None, np.array([1, 1, 2, 2.5], np.float32), mode="nearest"),
    "Resize, floor": one(
        "Resize",
        None,
        np.array([1, 1, 0.5, 3], np.float32),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
    "Resize, opset 10": one("Resize", np.array([1, 1, 2, 2], np.float32), opset=10),
    "Selu": one("Selu"),
    "Sigmoid": one("Sigmoid"),
    "Slice": one("Slice", ints(1, -4), ints(7, 2**62), ints(2, 3), ints(2, 1)),
    "Slice, opset 9": one("Slice", opset=9, starts=[1, 2], ends=[3, 9], axes=[1, 3]),
    "Softmax": one("Softmax", axis=1),
    "Softmax, opset 11": one("Softmax", opset=11),
    "Softplus": one("Softplus"),
    "Sqrt": make([helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Sqrt", ["a"], ["y"])]),
    "Squeeze": one("Squeeze", ints(2, 3), shape=("batch", 3, 1, 1)),
    "Squeeze, opset 9": one("Squeeze", opset=9, axes=[-1], shape=("batch", 3, 4, 1)),
    "Squeeze, all": one("Squeeze", shape=("batch", 3, 1, 1)),
    "Sub": one("Sub", floats(8, 10)),
    "Sum": one("Sum", floats(3, 8, 10), floats(10)),
    "Swish": one("Swish", opset=24),
    "Swish, 1.7": one("Swish", opset=24, alpha=1.7),
    "Tanh": one("Tanh"),
    "Transpose": one("Transpose", perm=[0, 3, 1, 2]),
    "Transpose, reversed": one("Transpose"),
    "Unsqueeze": one("Unsqueeze", ints(1, -1)),
    "Unsqueeze, opset 9": one("Unsqueeze", opset=9, axes=[2]),
    "Upsample": one("Upsample", np.array([1, 1, 2, 3], np.float32), opset=9, mode="nearest"),
    "Gemm": make(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0),
        ],
        {"w": floats(240, 4), "b": floats(4)},
    ),
    "Gemm, one bias": make(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1)],
        {"w": floats(4, 240), "b": floats(1)},
    ),
    "Gemm of two": make(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "f"], ["y"], transB=1, alpha=0.1)]
    ),
    "Split": make(
        [helper.make_node("Split", ["x", "s"], ["a", "b"], axis=1), helper.make_node("Mul", ["a", "b"], ["y"])],
        {"s": ints(1, 2)},
    ),
    "Split in two": make(
        [
            helper.make_node("Split", ["x"], ["a", "b"], axis=3, num_outputs=2),
            helper.make_node("Mul", ["a", "b"], ["y"]),
        ]
    ),
    "SplitToSequence": make(
        [
            helper.make_node("SplitToSequence", ["x", "one"], ["parts"], axis=1),
            helper.make_node("SequenceAt", ["parts", "one"], ["y"]),
        ],
        {"one": np.array(1, np.int64)},
    ),
    "Where": make(
        [
            helper.make_node("Greater", ["x", "zero"], ["p"]),
            helper.make_node("Less", ["x", "two"], ["q"]),
            helper.make_node("Equal", ["x", "two"], ["r"]),
            helper.make_node("And", ["p", "q"], ["c"]),
            helper.make_node("Where", ["c", "x", "w"], ["a"]),
            helper.make_node("Where", ["r", "zero", "a"], ["y"]),
        ],
        {"zero": f32(0), "two": f32(1.1), "w": floats(3, 1, 1)},
    ),
    "Log": make([helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Log", ["a"], ["y"])]),
    "MatMul of two": make(
        [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]), helper.make_node("MatMul", ["x", "t"], ["y"])]
    ),
    "CastLike": make([helper.make_node("CastLike", ["x", "x"], ["y"])]),
    "sizes": make(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
            helper.make_node("Slice", ["s", "two", "four"], ["hw"]),
            helper.make_node("ReduceProd", ["hw"], ["area"], keepdims=1),
            helper.make_node("Unsqueeze", ["n", "zeros"], ["n1"]),
            helper.make_node("Concat", ["n1", "minus", "area"], ["target"], axis=0),
            helper.make_node("Reshape", ["x", "target"], ["y"]),
        ],
        {"zero": np.array(0, np.int64), "two": ints(2), "four": ints(4), "zeros": ints(0), "minus": ints(-1)},
    ),
    "scales of sizes": make(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Cast", ["s"], ["f"], to=1),
            helper.make_node("Mul", ["f", "by"], ["scaled"]),
            helper.make_node("Floor", ["scaled"], ["floored"]),
            helper.make_node("Cast", ["floored"], ["sizes"], to=7),
            helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear"),
        ],
        {"by": np.array([1, 1, 1.5, 2], np.float32)},
    ),
    "a constant as wide as the batch": make(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Expand", ["w", "s"], ["wide"]),
            helper.make_node("Add", ["x", "wide"], ["y"]),
        ],
        {"w": floats(1, 3, 1, 1)},
    ),
    "one constant in two roles": make(
        [helper.make_node("Resize", ["x", "", "w"], ["r"]), helper.make_node("Mul", ["r", "w"], ["y"])],
        {"w": np.array([1, 1, 1, 2], np.float32)},
        shape=("batch", 3, 8, 2),
    ),
    "divided by a size": make(
        [
            helper.make_node("Shape", ["x"], ["s"], start=3, end=4),
            helper.make_node("Cast", ["s"], ["width"], to=1),
            helper.make_node("Div", ["x", "width"], ["y"]),
        ]
    ),
}


@pytest.mark.parametrize("model", CASES.values(), ids=CASES.keys())
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_an_operator(model: onnx.ModelProto) -> None:
    assert_same(model)


def test_every_operator_has_its_case() -> None:
    here = {node.op_type for model in CASES.values() for node in model.graph.node}
    assert here | {"AveragePool", "Conv", "MaxPool"} >= set(SUPPORTED)


FORMS: dict[str, tuple[onnx.ModelProto, str]] = {
    "a 4-D kernel": (one("Conv", floats(4, 3, 3, 1, 1, 1), shape=("b", 3, 8, 4, 4, 4)), "kernel has 4 dimensions"),
    "training": (
        one("BatchNormalization", floats(3), floats(3), floats(3), abs(floats(3)), training_mode=1),
        "training mode",
    ),
    "cropped by a region": (
        one(
            "Resize",
            np.ones(8, np.float32),
            None,
            ints(2, 3, 16, 20),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        "it resizes with tf_crop_and_resize",
    ),
    "a GRU of Keras": (
        one("GRU", floats(1, 15, 7), floats(1, 15, 5), shape=("batch", 2, 7), hidden_size=5),
        "linear_before",
    ),
    "an LSTM of its own": (
        one("LSTM", floats(1, 20, 7), floats(1, 20, 5), shape=("batch", 2, 7), hidden_size=5, clip=1.0),
        "its activations are not Sigmoid and Tanh",
    ),
    "sums backwards": (one("CumSum", ints(1), reverse=1), "from the first on"),
    "the last of the largest": (one("ArgMax", select_last_index=1), "the first of several"),
}


@pytest.mark.parametrize(("model", "message"), FORMS.values(), ids=FORMS.keys())
def test_a_form_that_pytorch_lacks_is_named(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ModelError, match=f"node 'it'.*{message}"):
        assert_same(model)
