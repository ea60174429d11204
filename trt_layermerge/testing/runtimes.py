"""What every runtime has to pass: inherit ``RuntimeConformance`` and give it a runtime.

The only package that imports pytest, which the extra ``dev`` brings; see docs/extending.md for a whole example.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trt_layermerge.errors import ExitCode, ModelError, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions, Runtime, Shape
from trt_layermerge.runtimes.registry import get_runtime, runtime_kind

Image = NDArray[np.float32]


def small_model(batch: int | str = 2, inputs: int = 3, outputs: int = 4) -> onnx.ModelProto:
    """relu(conv 3x3, 3 to 4 channels) on 8x8 images."""
    weights = np.random.default_rng(1).standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, inputs, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, outputs, 8, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def small_reference(x: Image) -> NDArray[np.float64]:
    """What ``small_model`` computes, tap by tap, in float64."""
    weights = numpy_helper.to_array(small_model().graph.initializer[0]).astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((len(x), 4, 8, 8))
    for i in range(3):
        for j in range(3):
            result += np.einsum("oc,nchw->nohw", weights[:, :, i, j], padded[:, :, i : i + 8, j : j + 8])
    return np.maximum(result, 0)


class RuntimeConformance:
    """Tests of a ``RuntimeKind``, its ``Runtime`` and its ``Engine``.

    Attributes:
        options: How engines are built; float32.
    """

    options = BuildOptions()

    @pytest.fixture
    def runtime(self) -> Runtime:
        """The runtime to be tested; for who inherits to say."""
        raise NotImplementedError

    @pytest.fixture
    def running(self, runtime: Runtime) -> Runtime:
        """The same, for tests that run an engine."""
        if not runtime.runs:
            pytest.skip("engines of this kind run elsewhere")
        return runtime

    @pytest.fixture
    def image(self) -> Image:
        """What ``small_model`` takes."""
        return np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)

    def test_the_registry_finds_it_by_its_name(self, runtime: Runtime) -> None:
        assert runtime_kind(runtime.name) is runtime.kind and get_runtime(runtime.name).name == runtime.name
        assert runtime.name.partition(":")[0] == runtime.kind.name

    def test_the_kind_says_what_is_here(self, runtime: Runtime) -> None:
        kind = runtime.kind
        assert kind.found() and kind.purpose and kind.suffix.startswith(".") and kind.missing() == []
        assert isinstance(kind.times_amid_network, bool)

    def test_targets_are_the_kinds(self, runtime: Runtime) -> None:
        assert (runtime.target in runtime.kind.targets) if runtime.kind.targets else runtime.target is None
        with pytest.raises(UsageError, match="no-such-target"):
            get_runtime(f"{runtime.kind.name}:no-such-target")

    @pytest.mark.parametrize("form", ["proto", "bytes", "path"])
    def test_computes_what_the_model_says(self, running: Runtime, image: Image, form: str, tmp_path: Path) -> None:
        model = small_model()
        onnx.save(model, tmp_path / "model.onnx")
        forms = {"proto": model, "bytes": model.SerializeToString(), "path": tmp_path / "model.onnx"}
        outputs = running.build(forms[form], self.options).run({"x": image})
        assert list(outputs) == ["y"]
        np.testing.assert_allclose(outputs["y"], small_reference(image), rtol=1e-3, atol=1e-4)

    def test_knows_its_inputs_and_outputs(self, runtime: Runtime) -> None:
        engine = runtime.build(small_model(), self.options)
        assert dict(engine.inputs) == {"x": (2, 3, 8, 8)}
        assert dict(engine.outputs) == {"y": (2, 4, 8, 8)}

    def test_an_open_batch_is_closed_on_request(self, runtime: Runtime) -> None:
        engine = runtime.build(small_model("batch"), self.options, {"x": (5, 3, 8, 8)})
        assert dict(engine.outputs) == {"y": (5, 4, 8, 8)}

    @pytest.mark.parametrize("shapes", [None, {"x": (2, 3, 8)}, {"x": (2, 4, 8, 8)}, {"z": (2, 3, 8, 8)}])
    def test_a_shape_that_is_open_or_does_not_fit_is_refused(
        self, runtime: Runtime, shapes: Mapping[str, Shape] | None
    ) -> None:
        with pytest.raises(ModelError):
            runtime.build(small_model("batch"), self.options, shapes)

    def test_the_callers_model_is_left_alone(self, runtime: Runtime) -> None:
        model = small_model("batch")
        before = model.SerializeToString()
        runtime.build(model, self.options, {"x": (5, 3, 8, 8)})
        assert model.SerializeToString() == before

    def test_times_are_one_positive_integer_a_run(self, running: Runtime) -> None:
        times = running.build(small_model(), self.options).time(7)
        assert times.shape == (7,) and times.dtype == np.int64 and (times > 0).all()

    def test_requests_and_layers_are_timed_where_they_are_told(self, running: Runtime) -> None:
        engine = running.build(small_model(), self.options)
        requests = running.host_times(engine, 5)
        assert requests is None or (requests.shape == (5,) and (requests > 0).all())
        layers, told = running.layer_times(engine, 5), json.loads(running.layer_information(engine))
        assert bool(layers) is bool(told["Layers"]) is running.tells_layers
        assert all(len(times) == 5 for times in layers.values())

    def test_running_is_not_changed_by_timing(self, running: Runtime, image: Image) -> None:
        engine = running.build(small_model(), self.options)
        before = engine.run({"x": image})["y"]
        engine.time(3)
        running.host_times(engine, 3)
        np.testing.assert_array_equal(engine.run({"x": image})["y"], before)

    def test_what_runs_elsewhere_says_so(self, runtime: Runtime, image: Image) -> None:
        if runtime.runs:
            pytest.skip("engines of this kind run here")
        engine = runtime.build(small_model(), self.options)
        for ask in (lambda: engine.run({"x": image}), lambda: engine.time(3)):
            with pytest.raises(RuntimeNotAvailableError) as caught:
                ask()
            assert caught.value.exit_code is ExitCode.NOT_AVAILABLE

    def test_a_block_amid_a_network_meets_no_layout_conversion(self, runtime: Runtime) -> None:
        """Who does not heed ``isolated`` adds to each block what it costs to enter and to leave a network."""
        alone = self.options
        if not runtime.kind.times_amid_network:
            pytest.skip("this kind times a block as a network of its own, and says so")
        amid, model = replace(alone, isolated=True), small_model(inputs=16, outputs=16)
        converted = runtime.build(model, alone).layout_conversions()
        engine = runtime.build(model, amid)
        assert engine.layout_conversions() == (), "isolated is not heeded"
        assert list(engine.inputs) == ["x"] and list(engine.outputs) == ["y"]
        if converted and runtime.runs:
            assert runtime.describe(amid).timing != runtime.describe(alone).timing, "latencies of both would meet"

    def test_a_precision_that_is_not_there_is_refused(self, runtime: Runtime) -> None:
        runtime.require_precision("fp32")
        for precision in set(PRECISIONS) - set(runtime.precisions):
            with pytest.raises(RuntimeNotAvailableError, match=precision) as caught:
                runtime.build(small_model(), replace(self.options, precision=precision))
            assert caught.value.hint is not None and runtime.precisions[-1] in caught.value.hint

    def test_a_saved_engine_is_the_same(self, runtime: Runtime, tmp_path: Path) -> None:
        engine, path = runtime.build(small_model(), self.options), tmp_path / "folder" / "engine"
        engine.save(path)
        again = runtime.load(path, self.options)
        assert again.describe() == engine.describe() == runtime.describe(self.options)
        assert [file.name for file in path.parent.iterdir()] == ["engine"]

    def test_a_saved_engine_computes_the_same(self, running: Runtime, image: Image, tmp_path: Path) -> None:
        engine = running.build(small_model(), self.options)
        engine.save(tmp_path / "engine")
        again = running.load(tmp_path / "engine", self.options)
        np.testing.assert_array_equal(again.run({"x": image})["y"], engine.run({"x": image})["y"])

    def test_the_device_can_be_written_down(self, runtime: Runtime) -> None:
        device = runtime.describe(self.options)
        assert json.loads(json.dumps(asdict(device))) == asdict(device)
        assert device.runtime == runtime.name and device.name and device.runtime_version

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07" * 10])
    def test_what_is_no_model_is_refused(self, runtime: Runtime, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(content)
        for read in (runtime.build, runtime.load):
            with pytest.raises(ModelError, match="file"):
                read(tmp_path / "file", self.options)
        with pytest.raises(ModelError):
            runtime.build(content, self.options)

    def test_a_missing_file_is_refused(self, runtime: Runtime, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="nowhere"):
            runtime.load(tmp_path / "nowhere", self.options)

    def test_inputs_that_are_not_the_models_are_refused(self, running: Runtime, image: Image) -> None:
        engine = running.build(small_model(), self.options)
        wrong: list[dict[str, Image]] = [{}, {"z": image}, {"x": image[:, :2]}]
        for inputs in wrong:
            with pytest.raises(ModelError):
                engine.run(inputs)
