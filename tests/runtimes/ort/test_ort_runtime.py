from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest

from trt_layermerge.errors import ExitCode, ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes import onnxruntime_cuda
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime
from trt_layermerge.testing.runtimes import RuntimeConformance, small_model


class TestOnnxRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> OnnxRuntime:
        return OnnxRuntime()

    def test_a_saved_engine_is_optimised_already(self, runtime, tmp_path) -> None:
        runtime.build(small_model(), self.options).save(tmp_path / "engine.onnx")
        operators = [node.op_type for node in onnx.load(tmp_path / "engine.onnx").graph.node]
        assert "Relu" not in operators, "the activation should have been fused"

    def test_isolation_is_part_of_the_key(self, runtime) -> None:
        assert runtime.describe(BuildOptions(isolated=True)) != runtime.describe(BuildOptions())

    def test_an_operator_nobody_knows_is_refused(self, runtime) -> None:
        model = small_model()
        model.graph.node[1].op_type = "Rleu"
        with pytest.raises(ModelError, match="Rleu"):
            runtime.build(model, self.options)

    def test_weights_in_another_file_need_the_path(self, runtime, tmp_path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(small_model(), path, save_as_external_data=True, location="weights", size_threshold=0)
        assert runtime.build(path, self.options).time(1) > 0
        with pytest.raises(ModelError, match="another file"):
            runtime.build(path.read_bytes(), self.options)

    def test_weights_may_not_lie_outside_the_folder(self, runtime, tmp_path) -> None:
        folder = tmp_path / "inner"
        folder.mkdir()
        onnx.save(small_model(), folder / "m.onnx", save_as_external_data=True, location="weights", size_threshold=0)
        (folder / "weights").rename(tmp_path / "weights")
        model = onnx.load(folder / "m.onnx", load_external_data=False)
        model.graph.initializer[0].external_data[0].value = "../weights"
        (folder / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError):
            runtime.build(folder / "m.onnx", self.options)


def test_a_provider_that_is_not_here_is_never_replaced_by_another(monkeypatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RuntimeNotAvailableError, match="CUDAExecutionProvider") as caught:
        OnnxRuntime(onnxruntime_cuda.KIND)
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE
    assert caught.value.hint is not None and "pip uninstall -y onnxruntime" in caught.value.hint


def test_a_provider_that_does_not_start_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda self: ["OtherExecutionProvider"])
    with pytest.raises(RuntimeNotAvailableError, match="did not start"):
        OnnxRuntime().build(small_model(), BuildOptions())


def test_no_threads_are_too_few() -> None:
    with pytest.raises(ValueError, match="threads"):
        BuildOptions(threads=0)
