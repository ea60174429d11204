"""Engines on their own: built, written with a manifest, verified; with ONNX Runtime, which is everywhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.delivery.engine_manifest import (
    EngineManifest,
    is_engine_manifest,
    manifest_path,
    read_engine_manifest,
    write_engine_manifest,
)
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.errors import IncompatibleError, InputError, ModelError, TableError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model


def built(folder: Path, output: str = "engine", options: BuildOptions | None = None) -> Path:
    """The manifest of an engine of a small model in a folder."""
    onnx.save(small_model("batch"), folder / "model.onnx")
    runtime = get_runtime("onnxruntime")
    build_engine(folder / "model.onnx", runtime, options or BuildOptions(), {"x": (3, 3, 8, 8)}, folder / output)
    return manifest_path(folder / output)


def changed(path: Path, **fields: object) -> None:
    """Write a manifest again, with other fields and a checksum that fits."""
    given = read_engine_manifest(path).model_dump(mode="json")
    write_engine_manifest(path, EngineManifest.model_validate(given | fields))


def test_a_manifest_tells_all_of_its_engine(tmp_path) -> None:
    path = built(tmp_path)
    manifest = read_engine_manifest(path)
    assert is_engine_manifest(path) and manifest.engine == "engine" and manifest.onnx == "model.onnx"
    assert manifest.files == {name: sha256(tmp_path / name) for name in ("engine", "model.onnx")}
    assert manifest.onnx_sha256 == manifest.files["model.onnx"]
    assert manifest.inputs == {"x": (3, 3, 8, 8)} and manifest.outputs == {"y": (3, 4, 8, 8)}
    assert manifest.device.runtime == "onnxruntime" and manifest.device.precision == "fp32"
    found = verify_built(path)
    assert found.files == 2 and found.manifest == manifest
    assert found.device == get_runtime("onnxruntime").describe(BuildOptions())


def test_a_model_elsewhere_is_known_by_its_hash(tmp_path) -> None:
    path = built(tmp_path, "folder/my engine")
    manifest = read_engine_manifest(path)
    assert manifest.files.keys() == {"my engine"} and manifest.onnx_sha256 == sha256(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").unlink()
    assert verify_built(path).files == 1


@pytest.mark.parametrize("name", ["engine", "model.onnx"])
def test_a_flipped_byte_and_a_missing_file_are_told_apart(name, tmp_path) -> None:
    path = built(tmp_path)
    data = bytearray((tmp_path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VerificationError, match=name):
        verify_built(path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        verify_built(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_flipped_byte_of_the_manifest_is_found(data, tmp_path) -> None:
    path = manifest_path(tmp_path / "engine")
    if not path.exists():
        built(tmp_path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(VerificationError, match="checksum"):
        verify_built(path)


def test_a_precision_that_the_graph_has_not_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="written in fp32"):
        built(tmp_path, options=BuildOptions(precision="fp16"))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("field", ["name", "runtime_version"])
def test_an_engine_for_something_else_is_incompatible(field, tmp_path) -> None:
    path = built(tmp_path)
    device = asdict(read_engine_manifest(path).device)
    changed(path, device=device | {field: "another"})
    with pytest.raises(IncompatibleError, match="another") as caught:
        verify_built(path)
    assert caught.value.hint is not None and "model.onnx" in caught.value.hint


def test_a_runtime_nobody_knows_is_the_manifests_fault(tmp_path) -> None:
    path = built(tmp_path)
    device = asdict(read_engine_manifest(path).device)
    changed(path, device=device | {"runtime": "onnxruntine"})
    with pytest.raises(TableError, match="onnxruntine"):
        verify_built(path)


@pytest.mark.parametrize("name", ["../engine", "a/b", "a\\b", "/etc/passwd", ".", "..", ""])
def test_files_lie_beside_the_manifest(name, tmp_path) -> None:
    path = built(tmp_path)
    fields = read_engine_manifest(path).model_dump(mode="json")
    with pytest.raises(ValueError, match="String should match pattern"):
        EngineManifest.model_validate(fields | {"engine": name, "files": fields["files"] | {name: "0" * 64}})
    with pytest.raises(ValueError, match="String should match pattern"):
        EngineManifest.model_validate(fields | {"onnx": name})


def test_what_is_loaded_is_hashed(tmp_path) -> None:
    fields = read_engine_manifest(built(tmp_path)).model_dump(mode="json")
    with pytest.raises(ValueError, match="no hash of other"):
        EngineManifest.model_validate(fields | {"engine": "other"})


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "trt-layermerge manifest"}'])
def test_what_is_no_manifest_is_refused(content, tmp_path) -> None:
    (tmp_path / "m.json").write_text(content)
    assert not is_engine_manifest(tmp_path / "m.json")
    with pytest.raises(TableError, match="is not a manifest"):
        read_engine_manifest(tmp_path / "m.json")
    with pytest.raises(TableError, match="cannot read"):
        read_engine_manifest(tmp_path / "nowhere.json")
