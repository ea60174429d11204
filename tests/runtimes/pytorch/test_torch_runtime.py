from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import ModelError, RuntimeNotAvailableError, UsageError
from trt_layermerge.latency.block_model import candidate_model
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.runtimes import torch as torch_kind
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.pytorch import kernel_calls
from trt_layermerge.runtimes.pytorch.kernel_calls import layout_of
from trt_layermerge.runtimes.pytorch.torch_runtime import TorchRuntime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model

WIDE = Geometry(16, 16, (3, 3), padding=(1, 1, 1, 1))


@pytest.fixture
def runtime() -> TorchRuntime:
    return TorchRuntime(torch_kind.KIND, "cpu")


class TestTorch(RuntimeConformance):
    @pytest.fixture
    def runtime(self, runtime: TorchRuntime) -> TorchRuntime:  # type: ignore[override]
        return runtime


def test_the_usual_device_is_the_gpu_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    for missing, target in (([RuntimeNotAvailableError("no driver")], "cpu"), ([], "cuda:0")):
        monkeypatch.setattr(torch_kind, "missing_driver", lambda missing=missing: missing)
        assert torch_kind.KIND.usual_target() == target


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_a_gpu_that_torch_does_not_see_is_never_replaced_by_the_cpu() -> None:
    with pytest.raises(RuntimeNotAvailableError, match="cuda:3 is not here"):
        get_runtime("torch:cuda:3")
    with pytest.raises(UsageError, match="no target"):
        get_runtime("torch:cuda")


@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu", "hardswish", "gelu", "prelu", "leaky_relu(0.1)"])
@pytest.mark.parametrize(
    "change",
    [{}, {"residual": True}, {"shift": True}, {"group_norm": 4}, {"pooling": True}, {"convolution": None}],
    ids=str,
)
def test_blocks_of_every_kind_compute_what_onnx_runtime_computes(
    runtime: TorchRuntime, activation: str | None, change: dict[str, object]
) -> None:
    signature = replace(Signature(2, (16, 8, 8), WIDE, activation=activation), **change)  # type: ignore[arg-type]
    if signature.empty:
        pytest.skip("nothing is left to run")
    model = candidate_model(signature)
    ours = runtime.build(model, BuildOptions(isolated=True))
    theirs = get_runtime("onnxruntime").build(model, BuildOptions())
    feeds = {n: np.random.default_rng(3).standard_normal(s).astype(np.float32) for n, s in ours.inputs.items()}
    expected = theirs.run(feeds)["output"]
    np.testing.assert_allclose(ours.run(feeds)["output"], expected, rtol=1e-3, atol=1e-4)


def test_a_network_is_converted_at_its_ends_and_a_block_is_not(runtime: TorchRuntime) -> None:
    wide = small_model(inputs=16, outputs=16)
    assert len(runtime.build(wide, BuildOptions()).layout_conversions()) == 2
    assert runtime.build(wide, BuildOptions(isolated=True)).layout_conversions() == ()


def test_threads_are_those_of_the_options_while_it_runs_and_the_callers_after(runtime: TorchRuntime) -> None:
    before, seen = torch.get_num_threads(), []
    engine = runtime.build(small_model(), BuildOptions(threads=2))
    calls = engine._calls
    calls.enqueue = lambda *given: seen.append(torch.get_num_threads())  # type: ignore[method-assign]
    engine.time(3)
    assert seen == [2, 2, 2] and torch.get_num_threads() == before == 1


@pytest.mark.parametrize(
    ("place", "precision", "tf32", "capability", "layout"),
    [
        ("cpu", "fp32", False, None, torch.channels_last),
        ("cuda:0", "fp16", False, (7, 5), torch.channels_last),
        ("cuda:0", "fp32", False, (9, 0), torch.contiguous_format),
        ("cuda:0", "fp32", True, (9, 0), torch.channels_last),
        ("cuda:0", "fp32", True, (7, 5), torch.contiguous_format),
    ],
)
def test_channels_last_is_for_tensor_cores_and_cpus(
    place: str, precision: str, tf32: bool, capability: object, layout: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    options = BuildOptions(precision=precision)
    assert layout_of(torch.device(place), options, GpuSettings(tf32=tf32)) is layout


def test_a_contiguous_network_is_converted_nowhere(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    """As float32 on a GPU; it computes the same."""
    expected = runtime.build(wide := small_model(inputs=16, outputs=16), BuildOptions())
    monkeypatch.setattr(kernel_calls, "layout_of", lambda *_: torch.contiguous_format)
    engine = runtime.build(wide, BuildOptions())
    feeds = {name: np.random.default_rng(0).random(shape, np.float32) for name, shape in engine.inputs.items()}
    assert engine.layout_conversions() == ()
    for name, value in engine.run(feeds).items():
        np.testing.assert_allclose(value, expected.run(feeds)[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", ["ieee", "tf32"])
def test_cudnn_rounds_as_the_options_say_whatever_the_caller_has_set(runtime: TorchRuntime, own: str) -> None:
    """torch refuses to read its older setting once one kind of operation has been set alone."""
    torch.backends.cudnn.conv.fp32_precision = own
    for tf32, expected in ((False, "ieee"), (True, "tf32")):
        calls, seen = runtime.build(small_model(), BuildOptions(settings=GpuSettings(tf32=tf32)))._calls, []
        with calls.computing():
            seen = [torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark]
        assert seen == [expected, True]
        assert [torch.backends.cudnn.conv.fp32_precision, torch.backends.cudnn.benchmark] == [own, False]
    torch.backends.cudnn.conv.fp32_precision = "tf32"


def test_an_engine_that_cannot_run_any_more_is_a_model_error(runtime: TorchRuntime) -> None:
    """As one is for which the GPU has no memory left: its row fails, and no other."""
    engine = runtime.build(small_model(), BuildOptions())

    def enqueue(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8 GiB")

    engine._calls.enqueue = enqueue  # type: ignore[method-assign]
    feeds = {name: np.zeros(shape, np.float32) for name, shape in engine.inputs.items()}
    for call in (lambda: engine.time(3), lambda: engine.run(feeds)):
        with pytest.raises(ModelError, match="cannot run the network: CUDA out of memory"):
            call()


def test_what_decides_latencies_is_in_the_key(runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    device = runtime.describe(BuildOptions(threads=3))
    assert device.runtime_version == torch.__version__ and device.threads == 3 and device.runtime == "torch:cpu"
    assert "channels-last" in device.settings and torch.backends.cpu.get_cpu_capability() in device.settings
    assert "threads passive" in device.settings and "passive" not in runtime.describe(BuildOptions()).settings
    assert asdict(device) != asdict(runtime.describe(BuildOptions(threads=3, isolated=True)))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_cpu_computes_in_floats_and_says_so(runtime: TorchRuntime, precision: str) -> None:
    with pytest.raises(RuntimeNotAvailableError, match=f"no {precision} convolutions"):
        runtime.build(small_model(), BuildOptions(precision=precision))


def test_a_graph_in_another_precision_than_was_asked_for_is_refused(runtime: TorchRuntime) -> None:
    model = candidate_model(Signature(1, (16, 8, 8), WIDE, precision="fp16"))
    with pytest.raises(ModelError, match="fp32 model without a single fp32 convolution"):
        runtime.build(model, BuildOptions())


def test_inputs_of_another_type_are_refused(runtime: TorchRuntime) -> None:
    engine = runtime.build(small_model(), BuildOptions())
    with pytest.raises(ModelError, match=r"torch\.float32 of shape"):
        engine.run({"x": np.zeros((2, 3, 8, 8))})


def test_operators_that_the_importer_does_not_know_are_named(runtime: TorchRuntime) -> None:
    model = small_model()
    model.graph.node[1].op_type = "Det"
    with pytest.raises(ModelError, match="Det"):
        runtime.build(model, BuildOptions())


def test_what_torch_cannot_compute_is_a_model_error_that_names_the_node(runtime: TorchRuntime) -> None:
    model = small_model()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((4, 5, 3, 3), np.float32), "w"))
    with pytest.raises(ModelError, match="Conv node"):
        runtime.build(model, BuildOptions())


def test_outputs_are_the_callers_own(runtime: TorchRuntime) -> None:
    """Not the memory of an input, nor of a constant."""
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 8, 8])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", [value], [out])
    opsets = [helper.make_opsetid("", 18)]
    engine = runtime.build(helper.make_model(graph, opset_imports=opsets, ir_version=10), BuildOptions())
    x = np.ones((2, 3, 8, 8), np.float32)
    engine.run({"x": x})["y"][:] = 7
    assert x.max() == 1 and engine.run({"x": x})["y"].max() == 1
