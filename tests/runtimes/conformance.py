"""What every runtime has to pass: inherit ``RuntimeConformance`` and give it a runtime."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.protocol import BuildOptions, Runtime


def small_model(batch: int | str = 2) -> onnx.ModelProto:
    """relu(conv 3x3, 3 to 4 channels) on 8x8 images."""
    weights = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 4, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def small_reference(x: np.ndarray) -> np.ndarray:
    """What ``small_model`` computes, tap by tap, in float64."""
    weights = numpy_helper.to_array(small_model().graph.initializer[0]).astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = (
        np.einsum("oc,nchw->nohw", weights[:, :, i, j], padded[:, :, i : i + 8, j : j + 8])
        for i in range(3)
        for j in range(3)
    )
    return np.maximum(sum(taps), 0)


class RuntimeConformance:
    """Tests of the ``Runtime`` and ``Engine`` protocols."""

    options = BuildOptions()

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError

    @pytest.fixture
    def image(self) -> np.ndarray:
        return np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)

    @pytest.mark.parametrize("form", ["proto", "bytes", "path"])
    def test_computes_what_the_model_says(self, runtime, image, form, tmp_path: Path) -> None:
        model = small_model()
        onnx.save(model, tmp_path / "model.onnx")
        forms = {"proto": model, "bytes": model.SerializeToString(), "path": tmp_path / "model.onnx"}
        outputs = runtime.build(forms[form], self.options).run({"x": image})
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], small_reference(image), rtol=1e-3, atol=1e-4)

    def test_knows_its_inputs_and_outputs(self, runtime) -> None:
        engine = runtime.build(small_model(), self.options)
        assert dict(engine.inputs) == {"x": (2, 3, 8, 8)}
        assert dict(engine.outputs) == {"y": (2, 4, 8, 8)}

    def test_an_open_batch_is_closed_on_request(self, runtime) -> None:
        engine = runtime.build(small_model("batch"), self.options, {"x": (5, 3, 8, 8)})
        assert dict(engine.outputs) == {"y": (5, 4, 8, 8)}

    @pytest.mark.parametrize("shapes", [None, {"x": (2, 3, 8)}, {"x": (2, 4, 8, 8)}, {"z": (2, 3, 8, 8)}])
    def test_a_shape_that_is_open_or_does_not_fit_is_refused(self, runtime, shapes) -> None:
        with pytest.raises(ModelError):
            runtime.build(small_model("batch"), self.options, shapes)

    def test_the_callers_model_is_left_alone(self, runtime) -> None:
        model = small_model("batch")
        before = model.SerializeToString()
        runtime.build(model, self.options, {"x": (5, 3, 8, 8)})
        assert model.SerializeToString() == before

    def test_times_are_one_positive_integer_a_run(self, runtime) -> None:
        times = runtime.build(small_model(), self.options).time(7)
        assert times.shape == (7,) and times.dtype == np.int64 and (times > 0).all()

    def test_running_is_not_changed_by_timing(self, runtime, image) -> None:
        engine = runtime.build(small_model(), self.options)
        before = engine.run({"x": image})["y"]
        engine.time(3)
        np.testing.assert_array_equal(engine.run({"x": image})["y"], before)

    def test_a_saved_engine_computes_the_same(self, runtime, image, tmp_path: Path) -> None:
        engine, path = runtime.build(small_model(), self.options), tmp_path / "folder" / "engine"
        engine.save(path)
        again = runtime.load(path, self.options)
        np.testing.assert_array_equal(again.run({"x": image})["y"], engine.run({"x": image})["y"])
        assert again.describe() == engine.describe() == runtime.describe(self.options)
        assert [file.name for file in path.parent.iterdir()] == ["engine"]

    def test_the_device_can_be_written_down(self, runtime) -> None:
        device = runtime.describe(self.options)
        assert json.loads(json.dumps(asdict(device))) == asdict(device)
        assert device.runtime == runtime.name and device.name and device.runtime_version

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 10])
    def test_what_is_no_model_is_refused(self, runtime, content, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(content)
        for read in (runtime.build, runtime.load):
            with pytest.raises(ModelError, match="file"):
                read(tmp_path / "file", self.options)
        with pytest.raises(ModelError):
            runtime.build(content, self.options)

    def test_a_missing_file_is_refused(self, runtime, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="nowhere"):
            runtime.load(tmp_path / "nowhere", self.options)

    def test_inputs_that_are_not_the_models_are_refused(self, runtime, image) -> None:
        engine = runtime.build(small_model(), self.options)
        for inputs in ({}, {"z": image}, {"x": image[:, :2]}):
            with pytest.raises(ModelError):
                engine.run(inputs)
