"""Files that cannot be read, one message each; and what is done to those that can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from tests.network.onnx_import.models import assert_same, imported, make, one, runtime
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.network import load_network
from trt_layermerge.network.onnx_import.onnx_graph import read_graph
from trt_layermerge.probe import DAMAGED

RNG = np.random.default_rng(1)
KERNEL = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
node = helper.make_node


FLOATS = np.random.default_rng(0).standard_normal((3, 8, 10)).astype(np.float32)


def conv_model(**more: object) -> onnx.ModelProto:
    return one("Conv", KERNEL, **more)


def with_input(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = conv_model()
    change(model)
    return model


def two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def of_bytes(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def held(**fields: object) -> Callable[[], onnx.ModelProto]:
    """A model whose kernel is not what it says."""

    def change(model: onnx.ModelProto) -> None:
        for name, value in fields.items():
            if name == "dims":
                model.graph.initializer[0].dims[:] = value
            else:
                setattr(model.graph.initializer[0], name, value)

    return lambda: with_input(change)


def control_flow() -> onnx.ModelProto:
    branch = helper.make_graph([node("Relu", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", 1, None)])
    return make(
        [node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)], {"c": np.array(True)}
    )


def doubled(what: str) -> onnx.ModelProto:
    model = make([node("Mine", ["x"], ["y"], domain="own")])
    model.opset_import.add(domain="own", version=1)
    body = [node("Relu", ["a"], ["b"])]
    model.functions.append(helper.make_function("own", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 18)]))
    having = model.graph if what == "output" else model
    getattr(having, what).append(getattr(having, what)[0])
    return model


BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "two inputs": (lambda: with_input(two_inputs), "takes inputs of several batches (1, 2): the first size of each"),
    "no inputs": (lambda: with_input(lambda model: model.graph.ClearField("input")), "net.onnx"),
    "bytes": (lambda: with_input(of_bytes), "input 'x' of net.onnx is uint8 of shape [?x3x8x10]"),
    "one number": (lambda: one("Relu", shape=()), "input 'x' of net.onnx is float of shape []; a batch of floats is"),
    "control flow": (control_flow, "has control flow: If node 'choice' holds a graph of its own"),
    "old": (lambda: one("Relu", opset=6), "has operator set 6; 7 to"),
    "from the future": (lambda: one("Relu", opset=999), "has operator set 999; 7 to"),
    "no operators of ONNX": (
        lambda: helper.make_model(conv_model().graph, opset_imports=[helper.make_opsetid("other", 1)]),
        "has none of ONNX's own operators",
    ),
    "unsupported": (
        lambda: make([node("Hardmax", ["x"], ["y"], name="winner")]),
        "operators that are not supported: Hardmax node 'winner'\n  hint: supported, of ONNX's own domain: Abs, Acos",
    ),
    "quantised": (
        lambda: make([node("QuantizeLinear", ["x", "s"], ["y"], name="q")], {"s": np.float32(0.1)}),
        "QuantizeLinear node 'q'\n  hint: it is quantised; give the network of floats",
    ),
    "a choice of boxes": (
        lambda: make([node("NonZero", ["x"], ["y"], name="n")]),
        "NonZero node 'n'\n  hint: let the network end before that",
    ),
    "of another domain": (
        lambda: make([node("FusedConv", ["x", "w"], ["y"], name="f", domain="com.microsoft")], {"w": KERNEL}),
        "not supported: com.microsoft::FusedConv node 'f'",
    ),
    "many unsupported": (
        lambda: make([node("Hardmax", [a], [b]) for a, b in ("xa", "ab", "bc", "cd", "dy")]),
        "Hardmax node 'a', Hardmax node 'b', Hardmax node 'c' and 2 more",
    ),
    "weights of no type": (
        held(data_type=0),
        "has the shape [4, 3, 3, 3] and the data type 0, which what it holds does",
    ),
    "weights of an unknown type": (held(data_type=77), "and the data type 77, which what it holds does not fit"),
    "too few weights": (held(dims=[4, 3, 3, 4]), "is malformed: 'w0' has the shape [4, 3, 3, 4] and the data type 1"),
    "half a weight": (held(raw_data=b"abc"), "is malformed: 'w0' has the shape [4, 3, 3, 3]"),
    "without an attribute": (lambda: make([node("MaxPool", ["x"], ["y"], name="p")]), "malformed at MaxPool node 'p'"),
    "out of order": (
        lambda: make([node("Relu", ["z"], ["y"], name="r"), node("Relu", ["x"], ["z"])]),
        "malformed: Relu node 'r' reads 'z' before it is computed",
    ),
    "no output": (lambda: make([node("Relu", ["x"], ["z"])]), "malformed: nothing computes its output 'y'"),
    "an output twice": (lambda: doubled("output"), "malformed: it returns 'y' twice"),
    "a function twice": (lambda: doubled("functions"), "functions that cannot be written out: Model contains multiple"),
    "a filter that is a number": (lambda: one("Conv", np.float32(1)), "Conv node 'it' cannot be computed"),
    "a division by a block of none": (lambda: one("SpaceToDepth", blocksize=0), "SpaceToDepth node 'it' cannot be"),
    "a size of none": (
        lambda: one("Resize", None, np.array([1, 1, 0, 0], np.float32)),
        "Resize node 'it' cannot be computed",
    ),
    "computed weights": (
        lambda: make(
            [node("ReduceMax", ["x"], ["k"]), node("InstanceNormalization", ["x", "k", "k"], ["y"], name="c")]
        ),
        "InstanceNormalization node 'c' cannot be read: its weights are not constant, but computed",
    ),
    "groups that do not fit": (lambda: conv_model(group=3), "Conv node 'it' cannot be computed"),
    "an output that is not computed": (
        lambda: make(
            [
                node("MaxPool", ["x"], ["p", "at"], kernel_shape=[2, 2]),
                node("Cast", ["at"], ["f"], to=1, name="c"),
                node("Add", ["p", "f"], ["y"]),
            ]
        ),
        "Cast node 'c' cannot be computed: it lacks an input",
    ),
    "shapes that do not fit": (
        lambda: make([node("Reshape", ["x", "s"], ["y"], name="r")], {"s": np.array([7, -1])}),
        "Reshape node 'r' cannot be computed: shape '[7, -1]' is invalid",
    ),
    "only sizes": (lambda: make([node("Shape", ["x"], ["y"])]), "returns sizes, not a tensor"),
    "only constants": (lambda: make([node("Relu", ["w"], ["y"])], {"w": KERNEL}), "returns what does not depend on"),
}


@pytest.mark.parametrize(("model", "message"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_read_is_one_message(model: Callable[[], onnx.ModelProto], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        imported(model())(torch.zeros(2, 3, 8, 10))
    assert message in str(caught.value) and caught.value.exit_code == ExitCode.BAD_INPUT
    assert "net.onnx" in caught.value.message and caught.value.hint, "of which file, and what to do"


@pytest.mark.parametrize("keep", [0, 1, 40, 200, -5])
def test_a_cut_file_is_one_message(tmp_path: Path, keep: int) -> None:
    data = conv_model().SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(data[:keep])
    with pytest.raises(ModelError, match=r"cut\.onnx") as caught:
        load_network(str(tmp_path / "cut.onnx"))
    assert caught.value.hint == DAMAGED


def test_weights_outside_of_the_file_stay_in_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        onnx.save(conv_model(), folder / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    network = load_network(str(inside / "m.onnx"))
    np.testing.assert_array_equal(network.module.get_parameter("it.weight").detach().numpy(), KERNEL)
    model = onnx.load(inside / "m.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../out/weights"
    (inside / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        load_network(str(inside / "m.onnx"))
    (outside / "weights").unlink()
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        load_network(str(outside / "m.onnx"))


# What is done to a graph


def test_constants_are_computed_and_remember_their_weights() -> None:
    nodes = [
        node("Constant", [], ["axes"], value=helper.make_tensor("", TensorProto.INT64, [2], [1, 2])),
        node("Unsqueeze", ["slope", "axes"], ["wide"]),
        node("PRelu", ["x", "wide"], ["p"]),
        node("Unsqueeze", ["other", "axes"], ["never read"]),
        node("Relu", ["p"], ["y"]),
    ]
    model = make(nodes, {"slope": np.ones(3, np.float32), "other": np.ones(3, np.float32)})
    graph = read_graph(model, "net.onnx")
    assert [item.op for item in graph.nodes] == ["PRelu", "Relu"]
    assert graph.origins["wide"] == "slope" and graph.constants["wide"].shape == (3, 1, 1)
    assert_same(model)


def scaled_by(*computed: onnx.NodeProto) -> list[onnx.NodeProto]:
    """``y = x * s``, where ``s`` is computed from weights alone."""
    return [*computed, node("Mul", ["x", "s"], ["y"])]


OLD_CONSTANTS = {
    "attribute of axes": (scaled_by(node("Unsqueeze", ["w"], ["s"], axes=[1, 2])), FLOATS[:, 0, 0]),
    "sum over axes": (scaled_by(node("ReduceSum", ["w"], ["s"], axes=[0])), FLOATS),
    "attributes of a slice": (scaled_by(node("Slice", ["w"], ["s"], starts=[1], ends=[2], axes=[1])), FLOATS),
    "attributes of a clip": (scaled_by(node("Clip", ["w"], ["s"], min=-0.5, max=0.5)), FLOATS),
    "attribute of padding": (scaled_by(node("Pad", ["w"], ["s"], pads=[0, 0, 0, 0, 4, 0])), FLOATS[:, :4]),
    "softmax over all axes from one on": (scaled_by(node("Softmax", ["w"], ["s"], axis=1)), FLOATS),
    "softmax over all axes from the first": (scaled_by(node("Softmax", ["w"], ["s"])), FLOATS),
}


@pytest.mark.parametrize(("nodes", "weights"), OLD_CONSTANTS.values(), ids=OLD_CONSTANTS.keys())
def test_constants_of_an_old_set_are_computed_as_it_says(nodes: list[onnx.NodeProto], weights: np.ndarray) -> None:
    assert_same(make(nodes, {"w": weights}, opset=9))


def test_sizes_multiply_an_image_as_numbers_do() -> None:
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Gather", ["sizes", "last"], ["side"]),
        node("Cast", ["side"], ["s"], to=TensorProto.FLOAT),
        node("Mul", ["x", "s"], ["y"]),
    ]
    assert_same(make(nodes, {"last": np.array([2, 3], np.int64)}, ("batch", 3, 8, 2)))


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_floats_of_any_width_are_read(kind: type) -> None:
    cast = node("Cast", ["x"], ["h"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    model = make([cast, node("Mul", ["h", "w"], ["y"])], {"w": KERNEL[0, :, :1, :1].astype(kind)})
    module = imported(model)
    assert module(torch.ones(1, 3, 8, 10)).dtype == torch.float32


def test_functions_of_the_file_are_written_out() -> None:
    body = helper.make_function(
        "mine",
        "Twice",
        ["a"],
        ["b"],
        [node("Relu", ["a"], ["r"]), node("Add", ["r", "r"], ["b"])],
        [helper.make_opsetid("", 18)],
    )
    graph = make([node("Twice", ["x"], ["y"], domain="mine")]).graph
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    assert_same(helper.make_model(graph, opset_imports=opsets, functions=[body], ir_version=8))


@pytest.mark.parametrize("batch", ["n", 1])
def test_what_becomes_images_inside_may_come_as_anything(tmp_path: Path, batch: int | str) -> None:
    """Sound ``[batch, 40, 1]``, as basic-pitch takes it, and its spectrum as images."""
    weights = {
        "rows": np.array([0 if batch == "n" else 1, 1, 1, 40]),
        "wave": np.random.default_rng(1).standard_normal((8, 1, 1, 5)).astype(np.float32),
        "turned": np.array([0 if batch == "n" else 1, 1, 8, 12]),
        "first": KERNEL[:, :1],
        "second": KERNEL.transpose(1, 0, 2, 3),
        "flat": np.array([0 if batch == "n" else 1, -1]),
    }
    nodes = [
        node("Reshape", ["x", "rows"], ["row"]),
        node("Conv", ["row", "wave"], ["bands"], strides=[1, 3]),
        node("Reshape", ["bands", "turned"], ["spectrum"]),
        node("Conv", ["spectrum", "first"], ["1"], pads=[1, 1, 1, 1]),
        node("Relu", ["1"], ["2"]),
        node("Conv", ["2", "second"], ["3"], pads=[1, 1, 1, 1]),
        node("Reshape", ["3", "flat"], ["y"]),
    ]
    model = make(nodes, weights, (batch, 40, 1))
    onnx.save(model, tmp_path / "sound.onnx")
    network = load_network(str(tmp_path / "sound.onnx"))
    assert [item.shape for item in network.inputs] == [(40, 1)]
    assert [len(chain) for chain in network.chains] == [1, 2]
    sound = torch.randn(3, 40, 1, generator=torch.Generator().manual_seed(0))
    expected = [runtime(model, part.numpy()) for part in sound.split(3 if batch == "n" else 1)]
    with torch.no_grad():
        np.testing.assert_allclose(network.module(sound).numpy(), np.concatenate(expected), atol=1e-5)


def test_weights_that_are_kept_in_eight_bits_are_weights() -> None:
    kept = RNG.integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
    weights = {"q": kept, "s": np.full(4, 0.02, np.float32), "z": np.zeros(4, np.int8)}
    nodes = [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), node("Conv", ["x", "w"], ["y"])]
    assert_same(make(nodes, weights, opset=13))


def two_images() -> onnx.ModelProto:
    """Of an image, a depth and a size that nothing reads, as detectors have one."""
    weights = {"w": RNG.standard_normal((4, 4, 3, 3)).astype(np.float32)}
    nodes = [node("Concat", ["x", "depth"], ["z"], axis=1), node("Conv", ["z", "w"], ["r"]), node("Relu", ["r"], ["y"])]
    model = make(nodes, weights, (1, 3, 8, 10))
    for name, shape in (("depth", [1, 1, 8, 10]), ("im_shape", [1, 2])):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return model


def test_several_inputs_keep_their_names_and_order(tmp_path: Path) -> None:
    model = two_images()
    onnx.save(model, tmp_path / "in.onnx")
    network = load_network(str(tmp_path / "in.onnx"))
    assert [(item.name, item.shape) for item in network.inputs] == [
        ("x", (3, 8, 10)),
        ("depth", (1, 8, 10)),
        ("im_shape", (2,)),
    ]
    export_onnx(network.module, network.inputs, tmp_path / "out.onnx")
    assert [value.name for value in onnx.load(tmp_path / "out.onnx").graph.input] == ["x", "depth", "im_shape"]
    feeds = {item.name: item.example(1).numpy() for item in network.inputs}
    expected, found = (
        ort.InferenceSession(tmp_path / f"{name}.onnx", providers=["CPUExecutionProvider"]).run(None, feeds)[0]
        for name in ("in", "out")
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_sizes_that_one_of_several_inputs_leaves_open_are_named(tmp_path: Path) -> None:
    model = two_images()
    model.graph.input[1].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="takes 3 inputs and leaves sizes of depth open"):
        load_network(str(tmp_path / "in.onnx"))


def test_the_version_of_operators_that_nothing_uses_is_no_matter() -> None:
    model = conv_model()
    model.opset_import.append(helper.make_opsetid("other", 2**40))
    assert imported(model)(torch.zeros(2, 3, 8, 10)) is not None


@pytest.mark.parametrize("version", [-1, 2**31, 2**40])
def test_a_version_of_the_format_that_there_cannot_be_is_refused(version: int) -> None:
    model = conv_model()
    model.ir_version = version
    with pytest.raises(ModelError, match=f"version {version} of the ONNX format"):
        imported(model)
