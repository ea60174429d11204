"""Deliveries written as what loads them: the files say what the engine takes, and its bytes are the engine's."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import _run
from tests.doubles.fixtures import Tell, doubles  # noqa: F401
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine
from trt_layermerge.deployment.base import Delivered, require_name
from trt_layermerge.deployment.delivered import read_delivered
from trt_layermerge.deployment.registry import DEPLOYMENTS, deploy
from trt_layermerge.errors import InputError, RuntimeNotAvailableError, UsageError, VerificationError
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model


def built(folder: Path, runtime: str = "onnxruntime", options: BuildOptions | None = None) -> Path:
    """The manifest of an engine of a small model, images [batch, 3, 8, 8] to [batch, 4, 8, 8]."""
    onnx.save(small_model("batch"), folder / "model.onnx")
    made = get_runtime(runtime)
    build_engine(
        folder / "model.onnx", made, options or BuildOptions(threads=2), {"x": (3, 3, 8, 8)}, folder / "engine"
    )
    return manifest_path(folder / "engine")


@pytest.fixture
def on_cpu(tmp_path) -> Delivered:
    return read_delivered(built(tmp_path))


def field(text: str, name: str) -> list[str]:
    return re.findall(rf"\b{name}: (\[[^]]*\]|\S+)", text)


def test_triton_gets_the_engine_and_its_shapes(on_cpu, tmp_path) -> None:
    config, model = deploy(on_cpu, "triton", "small", tmp_path / "repository")
    assert model == tmp_path / "repository" / "small" / "1" / "model.onnx" and config.parent.name == "small"
    assert model.read_bytes() == on_cpu.engine.read_bytes()
    text = config.read_text()
    assert field(text, "backend") == ['"onnxruntime"'] and field(text, "max_batch_size") == ["0"]
    assert field(text, "dims") == ["[ 3, 3, 8, 8 ]", "[ 3, 4, 8, 8 ]"] and field(text, "name") == [
        '"small"',
        '"x"',
        '"y"',
    ]
    assert field(text, "kind") == ["KIND_CPU"] and field(text, "string_value") == ['"2"'] and "dynamic" not in text


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    ("batches", "most", "dims"),
    [
        (None, "0", ["[ 3, 3, 8, 8 ]", "[ 3, 4, 8, 8 ]"]),
        ((1, 16), "16", ["[ 3, 8, 8 ]", "[ 4, 8, 8 ]"]),
        ((2, 16), "0", ["[ -1, 3, 8, 8 ]", "[ -1, 4, 8, 8 ]"]),
    ],
)
def test_triton_puts_batches_together_only_where_every_batch_is_taken(batches, most, dims, tmp_path) -> None:
    delivered = read_delivered(built(tmp_path, "tensorrt", BuildOptions(batches=batches)))
    config, model = deploy(delivered, "triton", "small", tmp_path / "repository")
    text = config.read_text()
    assert model.name == "model.plan" and field(text, "backend") == ['"tensorrt"']
    assert field(text, "max_batch_size") == [most] and field(text, "dims") == dims
    assert ("dynamic_batching" in text) == (most != "0") and field(text, "kind") == ["KIND_GPU"]


@pytest.mark.usefixtures("doubles")
def test_deepstream_gets_raw_outputs_of_what_is_no_classifier(tmp_path) -> None:
    delivered = read_delivered(built(tmp_path, "tensorrt", BuildOptions(precision="fp32")))
    config, engine = deploy(delivered, "deepstream", "small", tmp_path / "out")
    assert engine.read_bytes() == delivered.engine.read_bytes()
    lines = [line for line in config.read_text().splitlines() if line and line[0] not in "#["]
    values = dict(line.split("=", 1) for line in lines)
    assert values["model-engine-file"] == "small.engine" and values["infer-dims"] == "3;8;8"
    assert values["batch-size"] == "3" and values["network-mode"] == "0" and values["network-type"] == "100"
    assert values["input-blob-name"] == "x" and values["output-blob-names"] == "y"


def test_python_runs_the_engine_without_this_package(on_cpu, tmp_path, capsys) -> None:
    script, engine = deploy(on_cpu, "python", "small", tmp_path / "out")
    assert "trt_layermerge" not in script.read_text() and engine.read_bytes() == on_cpu.engine.read_bytes()
    assert runpy.run_path(str(script))["outputs"]["y"].shape == (3, 4, 8, 8)
    assert capsys.readouterr().out == "{'y': (3, 4, 8, 8)}\n"


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(("runtime", "module"), [("tensorrt", "tensorrt"), ("tensorrt-rtx:sm75", "tensorrt_rtx")])
def test_python_of_a_plan_calls_only_what_our_own_engines_call(runtime, module, tmp_path) -> None:
    """Nothing here runs it: its calls are held against those of ours, which the bindings are checked for."""
    delivered = read_delivered(built(tmp_path, runtime))
    script, _ = deploy(delivered, "python", "small", tmp_path / "out")
    text = script.read_text()
    compile(text, str(script), "exec")
    assert f"import {module} as trt" in text and "'x': torch.zeros((3, 3, 8, 8), dtype=torch.float32)" in text
    source = Path(__file__).parents[2] / "trt_layermerge" / "runtimes" / "nvidia"
    ours = "".join(file.read_text() for file in source.glob("*.py") if file.name != "loading_script.py")
    for name in set(re.findall(r"\b(?:trt|engine|context)\.(\w+)", text)) - {"Logger", "WARNING"}:
        assert name in ours, name


class _Mlflow(SimpleNamespace):
    """As much of MLflow as a run takes."""

    class exceptions:  # noqa: N801
        MlflowException = type("MlflowException", (Exception,), {})

    def __init__(self) -> None:
        self.params: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self.files: list[str] = []
        self.running: Any = None

    def active_run(self) -> Any:
        return self.running

    def start_run(self, run_name: str) -> _Mlflow:
        self.running = SimpleNamespace(info=SimpleNamespace(run_id=f"id of {run_name}"))
        return self

    def __enter__(self) -> _Mlflow:
        return self

    def __exit__(self, *_: object) -> None:
        self.running = None

    def log_params(self, params: dict[str, str]) -> None:
        self.params |= params

    def log_metrics(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def log_artifact(self, file: str, _folder: str) -> None:
        self.files.append(Path(file).name)

    def get_tracking_uri(self) -> str:
        return "here"


@pytest.fixture
def mlflow(monkeypatch) -> Iterator[_Mlflow]:
    double = _Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", double)
    yield double


def test_mlflow_gets_a_run(on_cpu, mlflow, tmp_path) -> None:
    (record,) = deploy(on_cpu, "mlflow", "small", tmp_path / "out")
    assert json.loads(record.read_text()) == {"run_id": "id of small", "tracking_uri": "here"}
    assert mlflow.files == ["engine.manifest.json", "engine"] and mlflow.params.keys() == {"onnx_sha256"}


def test_mlflow_that_refuses_is_told_in_one_message(on_cpu, mlflow, monkeypatch, tmp_path) -> None:
    def refuse(_: object) -> None:
        raise mlflow.exceptions.MlflowException("no such server")

    monkeypatch.setattr(mlflow, "log_params", refuse)
    with pytest.raises(RuntimeNotAvailableError, match="no such server"):
        deploy(on_cpu, "mlflow", "small", tmp_path / "out")


@pytest.mark.parametrize("to", ["triton", "deepstream", "python"])
def test_a_runtime_without_a_place_there_is_refused_with_one_that_has(to, tmp_path) -> None:
    delivered = read_delivered(built(tmp_path, "torch"))
    with pytest.raises(RuntimeNotAvailableError) as caught:
        deploy(delivered, to, "small", tmp_path / "out")
    assert "'torch'" in caught.value.message and "tensorrt" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("doubles")
def test_deepstream_refuses_what_is_no_image(tmp_path) -> None:
    onnx.save(onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[2,5] a) => (float[2,5] b) { b = Relu(a) }'
    ), tmp_path / "m.onnx")  # fmt: skip
    build_engine(tmp_path / "m.onnx", get_runtime("tensorrt"), BuildOptions(), {}, tmp_path / "engine")
    with pytest.raises(UsageError, match=r"one image .* a \[2, 5\]"):
        deploy(read_delivered(manifest_path(tmp_path / "engine")), "deepstream", "small", tmp_path / "out")


def test_a_changed_engine_is_not_deployed(tmp_path) -> None:
    path = built(tmp_path)
    with (tmp_path / "engine").open("ab") as file:
        file.write(b"!")
    with pytest.raises(VerificationError, match="not the file that was delivered"):
        read_delivered(path)


def test_a_model_elsewhere_is_asked_for_and_known_by_its_hash(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    onnx.save(small_model("batch"), tmp_path / "model.onnx")
    output = tmp_path / "there" / "engine"
    build_engine(tmp_path / "model.onnx", get_runtime("onnxruntime"), BuildOptions(), {"x": (3, 3, 8, 8)}, output)
    with pytest.raises(InputError, match=r"model\.onnx is missing") as caught:
        read_delivered(manifest_path(output))
    assert "--model" in str(caught.value.hint)
    assert read_delivered(manifest_path(output), tmp_path / "model.onnx").inputs[0].shape == (3, 3, 8, 8)
    onnx.save(small_model("other"), tmp_path / "other.onnx")
    with pytest.raises(VerificationError, match="not the file that the engine was built from"):
        read_delivered(manifest_path(output), tmp_path / "other.onnx")


@given(st.text(max_size=8))
def test_a_name_leaves_no_folder(name: str) -> None:
    try:
        assert Path("folder", require_name(name)).resolve().parent == Path("folder").resolve()
    except UsageError as error:
        assert "--name" in str(error.hint)


def test_the_command_names_all_kinds_and_writes(tmp_path) -> None:
    path = built(tmp_path)
    said = _run("deploy", "--help").out
    assert all(name in said for name in DEPLOYMENTS)
    ran = _run("deploy", path, "--to", "triton", "--output", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["files"] == [str(tmp_path / "out" / "engine" / end) for end in ("config.pbtxt", "1/model.onnx")]
    assert _run("deploy", path, "--to", "triton", "--name", "../up", "--output", tmp_path / "out").code == 2
    assert _run("deploy", path, "--to", "deepstream", "--output", tmp_path / "out").code == 6
