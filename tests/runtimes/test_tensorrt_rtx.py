"""Real compilations: each in a process of its own, for a device that is not here."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.runtimes.conformance import small_model
from tests.runtimes.test_graph_precision import written_in
from trt_layermerge.errors import ExitCode, IncompatibleError, ModelError, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.products import as_convolutions
from trt_layermerge.runtimes.protocol import BuildOptions, Runtime, Tuning
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.runtimes.rtx_plan import TARGETS, read_header

rtx = pytest.importorskip("tensorrt_rtx", reason="needs pip install 'tensorrt-rtx-cu12>=1.7.1'")

OPTIONS = BuildOptions()


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return get_runtime("tensorrt-rtx")


def classifier(batch: int | str = 2) -> onnx.ModelProto:
    """A convolution and a classifier, whose float32 matrix product SM75 does not have."""
    proto = small_model(batch)
    weights = np.random.default_rng(3).standard_normal((4, 10)).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["y"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc"], ["logits"], "fc"),
    ]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.append(numpy_helper.from_array(weights, "fc"))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, 10]))
    return proto


@pytest.mark.parametrize("target", TARGETS)
def test_compiles_for_each_target_and_says_so_in_the_plan(target, tmp_path) -> None:
    runtime = get_runtime(f"tensorrt-rtx:{target}")
    engine = runtime.build(classifier(), OPTIONS)
    engine.save(tmp_path / "folder" / "plan")
    header = read_header(tmp_path / "folder" / "plan")
    assert header.targets == (target,) and header.version == rtx.__version__
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["plan"]
    assert runtime.load(tmp_path / "folder" / "plan", OPTIONS).describe() == engine.describe()


def test_every_target_is_one_of_the_library() -> None:
    assert {target.upper() for target in TARGETS} <= rtx.ComputeCapability.__members__.keys()


def test_knows_inputs_and_outputs_of_what_it_built(runtime) -> None:
    engine = runtime.build(classifier("batch"), OPTIONS, {"x": (5, 3, 8, 8)})
    assert dict(engine.inputs) == {"x": (5, 3, 8, 8)} and dict(engine.outputs) == {"logits": (5, 10)}


def test_what_a_file_says_of_an_open_batch_does_not_hide_shapes(runtime) -> None:
    proto = classifier("batch")
    proto.graph.value_info.append(helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, ["batch", 4]))
    assert dict(runtime.build(proto, OPTIONS, {"x": (5, 3, 8, 8)}).outputs) == {"logits": (5, 10)}


def test_an_output_whose_shape_the_values_decide_is_refused(runtime) -> None:
    proto = small_model()
    proto.graph.node.append(helper.make_node("NonZero", ["y"], ["where"]))
    proto.graph.output.append(helper.make_tensor_value_info("where", onnx.TensorProto.INT64, None))
    with pytest.raises(ModelError, match="'where' cannot be known"):
        runtime.build(proto, OPTIONS)


def test_a_range_of_batches_is_one_engine(runtime) -> None:
    engine = runtime.build(classifier("batch"), BuildOptions(batches=(1, 8)), {"x": (4, 3, 8, 8)})
    assert dict(engine.outputs) == {"logits": (4, 10)}
    with pytest.raises(ModelError, match="batch 9"):
        runtime.build(classifier("batch"), BuildOptions(batches=(1, 8)), {"x": (9, 3, 8, 8)})


def test_the_same_model_gives_the_same_bytes(runtime, tmp_path) -> None:
    for name in ("one", "two"):
        runtime.build(small_model(), OPTIONS).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_block_in_any_memory_format_compiles(runtime, tmp_path) -> None:
    for isolated in (True, False):
        runtime.build(small_model(), BuildOptions(isolated=isolated)).save(tmp_path / str(isolated))
    assert (tmp_path / "True").read_bytes() != (tmp_path / "False").read_bytes()


@pytest.mark.parametrize("shapes", [None, {"x": (2, 3, 8)}, {"x": (2, 4, 8, 8)}, {"z": (2, 3, 8, 8)}])
def test_a_shape_that_is_open_or_does_not_fit_is_refused(runtime, shapes) -> None:
    with pytest.raises(ModelError):
        runtime.build(small_model("batch"), OPTIONS, shapes)


def test_a_parser_error_names_its_node(runtime, tmp_path) -> None:
    proto = small_model()
    proto.graph.node[1].op_type, proto.graph.node[1].name = "Rleu", "activation"
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(ModelError, match=r"cannot read .*wrong.onnx: node 'activation' \(Rleu\)"):
        runtime.build(tmp_path / "wrong.onnx", OPTIONS)


def test_what_the_compiler_refuses_is_an_error_with_its_words(runtime) -> None:
    """A product of two tensors is no classifier, and SM75 has no float32 product."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"], "product")],
        "product",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8, 8]) for name in "ab"],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [8, 8])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(ModelError, match=r"(?s)cannot build.*product.*SM75"):
        runtime.build(proto, OPTIONS)
    get_runtime("tensorrt-rtx:sm86").build(proto, OPTIONS)


def test_what_is_written_in_half_precision_compiles_as_it_is(runtime) -> None:
    """SM75 has FP16 matrix products, so nothing is rewritten."""
    proto = classifier()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert as_convolutions(proto).SerializeToString() == proto.SerializeToString()
    assert dict(runtime.build(proto, BuildOptions(precision="fp16")).outputs) == {"logits": (2, 10)}


def test_quantised_convolutions_compile(runtime) -> None:
    engine = runtime.build(written_in("int8"), BuildOptions(precision="int8"))
    assert dict(engine.outputs) == {"y": (2, 4, 6, 6)} and engine.describe().precision == "int8"


def test_the_time_limit_is_the_options(runtime) -> None:
    with pytest.raises(ModelError, match="took longer than"):
        runtime.build(small_model(), BuildOptions(tuning=Tuning(build_seconds=0.01)))


def test_running_takes_the_device(runtime, tmp_path) -> None:
    built = runtime.build(small_model(), OPTIONS)
    built.save(tmp_path / "plan")
    loaded = runtime.load(tmp_path / "plan", OPTIONS)
    image = np.zeros((2, 3, 8, 8), np.float32)
    asked = [lambda: built.run({"x": image}), lambda: built.time(3), lambda: loaded.inputs, lambda: loaded.outputs]
    for ask in asked:
        with pytest.raises(RuntimeNotAvailableError, match="no GPU here to run it on") as caught:
            ask()
        assert caught.value.exit_code is ExitCode.NOT_AVAILABLE


def test_a_plan_for_something_else_is_not_loaded(runtime, tmp_path) -> None:
    get_runtime("tensorrt-rtx:sm86").build(small_model(), OPTIONS).save(tmp_path / "plan")
    with pytest.raises(IncompatibleError, match=r"for sm86 by TensorRT-RTX .* not for sm75"):
        runtime.load(tmp_path / "plan", OPTIONS)
    data = bytearray((tmp_path / "plan").read_bytes())
    data[26] += 1
    (tmp_path / "plan").write_bytes(data)
    with pytest.raises(IncompatibleError, match=r"by TensorRT-RTX 1\.7\.2\."):
        get_runtime("tensorrt-rtx:sm86").load(tmp_path / "plan", OPTIONS)


def test_the_device_can_be_written_down(runtime) -> None:
    device = runtime.describe(BuildOptions(precision="fp16"))
    assert json.loads(json.dumps(asdict(device))) == asdict(device)
    assert device.name == "SM75 (ahead of time)" and device.runtime == runtime.name == "tensorrt-rtx:sm75"
    assert device.runtime_version == rtx.__version__ and device.precision == "fp16" and not device.simulated
    assert get_runtime(device.runtime).describe(OPTIONS).name == device.name and runtime.condition() is None


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 10])
def test_what_is_no_model_is_refused(runtime, content, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    for read in (runtime.build, runtime.load):
        with pytest.raises(ModelError, match="file"):
            read(tmp_path / "file", OPTIONS)


def test_weights_in_another_file_are_found(runtime, tmp_path) -> None:
    onnx.save(small_model(), tmp_path / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    assert runtime.build(tmp_path / "m.onnx", OPTIONS).inputs


@pytest.mark.parametrize("target", ["sm70", "SM75", "turing"])
def test_a_target_nobody_has_is_refused(target) -> None:
    with pytest.raises(UsageError, match=target) as caught:
        get_runtime(f"tensorrt-rtx:{target}")
    assert caught.value.hint is not None and "sm75" in caught.value.hint


@pytest.mark.parametrize("version", ["1.6.1.120", "1.4.0.76", "1.7"])
def test_a_release_that_miscompiles_is_refused(version, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", SimpleNamespace(__version__=version))
    with pytest.raises(RuntimeNotAvailableError, match=f"{version} is too old") as caught:
        get_runtime("tensorrt-rtx")
    assert caught.value.hint == "pip install 'tensorrt-rtx-cu12>=1.7.1'"
