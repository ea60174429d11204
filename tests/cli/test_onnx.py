"""A network that comes as an ONNX file goes through the whole job."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from safetensors.torch import save_file

from tests.cli.conftest import DELIVERED
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.network.source import load_source

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = load_source(str(ASSETS / "model.py"))
    assert source.input_shape is not None
    path = tmp_path_factory.mktemp("exported") / "network.onnx"
    export_onnx(source.module, source.input_shape, path)
    return path


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    """The network of the desk as a file of one's own."""
    return Path(shutil.copy(exported, tmp_path))


def test_compress(desk: Any, model: Path, run: Any) -> None:
    ran = run("compress", model, *desk.job[3:], "--json")  # without the spec and its weights
    assert ran.code in DELIVERED, ran.err
    assert ran.json["compressed"]["accuracy"] is not None
    session = ort.InferenceSession(ran.json["engine"], providers=["CPUExecutionProvider"])
    (value,) = session.get_inputs()
    (scores,) = session.run(None, {value.name: np.zeros(value.shape, np.float32)})
    assert np.isfinite(scores).all()


def test_inspect_finds_what_it_finds_in_the_source(desk: Any, model: Path, run: Any) -> None:
    ours, theirs = run("inspect", model, "--json").json, run("inspect", desk.source / "model.py", "--json").json
    for key in ("skips", "breaks", "choices", "largest_merge"):
        assert ours[key] == theirs[key]


def test_weights_of_the_same_names_replace_those_of_the_file(desk: Any, model: Path, run: Any) -> None:
    state = {name: value + 1 for name, value in load_source(str(model)).module.state_dict().items()}
    save_file(state, desk.folder / "other.safetensors")
    assert run("inspect", model, "--weights", desk.folder / "other.safetensors").code == 0
    save_file({"stranger": torch.zeros(1)}, desk.folder / "other.safetensors")
    ran = run("inspect", model, "--weights", desk.folder / "other.safetensors")
    assert ran.code == 3 and "does not fit the model" in ran.err and "Traceback" not in ran.err


def test_an_operator_that_is_not_supported_is_named(model: Path, run: Any) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].op_type, proto.graph.node[0].domain, proto.graph.node[0].name = "Fused", "com.shop", "stem"
    onnx.save(proto, model)
    ran = run("inspect", model)
    assert ran.code == 3 and "com.shop::Fused node 'stem'" in ran.err and "supported, of ONNX's own" in ran.err
    assert "Traceback" not in ran.err


def test_an_open_input_shape_has_to_be_given(model: Path, run: Any) -> None:
    proto = onnx.load(model)
    for dimension in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dimension.dim_param = "open"
    onnx.save(proto, model)
    ran = run("inspect", model)
    assert ran.code == 2 and "--input CxHxW" in ran.err
    shape = load_source(str(model)).input_shape
    assert shape is None


@pytest.mark.parametrize("name", ["none.onnx", "folder.onnx", "empty.onnx"])
def test_what_is_no_file_of_onnx(name: str, tmp_path: Path, run: Any) -> None:
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    ran = run("inspect", tmp_path / name)
    assert ran.code == 3 and name in ran.err and "Traceback" not in ran.err
