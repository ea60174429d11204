"""Real compilations: each in a process of its own, for a device that is not here."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.runtimes.test_graph_precision import written_in
from trt_layermerge.errors import ExitCode, IncompatibleError, ModelError, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions, Runtime
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.nvidia.products import as_convolutions
from trt_layermerge.runtimes.nvidia.rtx_plan import TARGETS, read_header
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

rtx = pytest.importorskip("tensorrt_rtx", reason="needs pip install 'tensorrt-rtx-cu12>=1.7.1'")

OPTIONS = BuildOptions()


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return get_runtime("tensorrt-rtx")


class TestConformance(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime("tensorrt-rtx:sm86")


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


@pytest.mark.parametrize("target", [target for target in TARGETS if target != "sm75"])
def test_convolutions_in_int8_are_that_in_the_plan(target) -> None:
    engine = get_runtime(f"tensorrt-rtx:{target}").build(written_in("int8"), BuildOptions(precision="int8"))
    assert dict(engine.outputs) == {"y": (2, 4, 6, 6)} and engine.describe().precision == "int8"


def test_sm75_has_no_int8_and_says_what_to_do(runtime) -> None:
    with pytest.raises(RuntimeNotAvailableError, match="'tensorrt-rtx:sm75' has no int8 convolutions") as caught:
        runtime.build(written_in("int8"), BuildOptions(precision="int8"))
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE and "--precision fp16" in str(caught.value.hint)


def test_what_the_compiler_makes_of_int8_for_sm75_is_not_called_int8(runtime, monkeypatch, tmp_path) -> None:
    """Without the refusal, the plan itself tells: its convolutions read floats."""
    monkeypatch.setattr(type(runtime), "precisions", PRECISIONS)
    with pytest.raises(ModelError, match="without a single int8 convolution: all are in fp32") as caught:
        runtime.build(written_in("int8"), BuildOptions(precision="int8"))
    assert caught.value.exit_code is ExitCode.BAD_INPUT
    runtime.build(written_in("int8"), OPTIONS).save(tmp_path / "plan")
    with pytest.raises(ModelError, match="without a single int8 convolution"):
        runtime.load(tmp_path / "plan", BuildOptions(precision="int8"))


@pytest.mark.parametrize("target", ["sm75", "sm86"])
def test_halves_are_halves_in_the_plan(target) -> None:
    runtime = get_runtime(f"tensorrt-rtx:{target}")
    runtime.build(written_in("fp16"), BuildOptions(precision="fp16"))
    with pytest.raises(ModelError, match="without a single fp32 convolution: all are in fp16"):
        runtime.build(written_in("fp16"), OPTIONS)


def test_the_time_limit_is_the_options(runtime) -> None:
    with pytest.raises(ModelError, match="took longer than"):
        runtime.build(small_model(), BuildOptions(settings=TensorRtSettings(build_seconds=0.01)))


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
    assert "pip install 'tensorrt-rtx-cu12>=1.7.1'" in str(caught.value.hint)
