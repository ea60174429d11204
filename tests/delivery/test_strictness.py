from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from trt_layermerge.delivery.checksum import with_checksum
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.delivery.manifest import read_manifest
from trt_layermerge.delivery.strictness import require_strict
from trt_layermerge.errors import TableError, VerificationError
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model

VERSION_1 = Path(__file__).parent / "assets" / "manifest-v1.json"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The manifest of an engine, alone in a folder with what it lists."""
    onnx.save(small_model(), tmp_path / "m.onnx")
    build_engine(tmp_path / "m.onnx", get_runtime("onnxruntime"), BuildOptions(), {}, tmp_path / "m.engine.onnx")
    return manifest_path(tmp_path / "m.engine.onnx")


def test_what_is_listed_and_nothing_else_passes(built: Path) -> None:
    assert verify_built(built, strict=True).files == 2
    other = built.with_name("other.onnx")
    shutil.copy(built.with_name("m.onnx"), other)
    build_engine(other, get_runtime("onnxruntime"), BuildOptions(), {}, built.with_name("other.engine.onnx"))
    assert verify_built(built, strict=True).files == 2, "another engine's manifest lists the others"


@pytest.mark.parametrize("add", [lambda p: p.write_bytes(b""), lambda p: p.mkdir(), lambda p: p.symlink_to("m.onnx")])
def test_what_no_manifest_lists_is_named(built: Path, add: Callable[[Path], object]) -> None:
    add(built.with_name("beside"))
    verify_built(built)
    with pytest.raises(VerificationError, match="no manifest lists beside"):
        verify_built(built, strict=True)


def test_a_changed_file_of_an_engine_beside_is_one(built: Path) -> None:
    other = built.with_name("other.onnx")
    shutil.copy(built.with_name("m.onnx"), other)
    build_engine(other, get_runtime("onnxruntime"), BuildOptions(), {}, built.with_name("other.engine.onnx"))
    other.write_bytes(b"another")
    with pytest.raises(VerificationError, match=r"other\.onnx is not the file"):
        verify_built(built, strict=True)


def test_all_that_is_weaker_is_said_at_once(tmp_path: Path) -> None:
    path = Path(shutil.copy(VERSION_1, tmp_path))
    manifest = read_manifest(path).model_copy(update={"simulated": True})
    with pytest.raises(VerificationError, match="no checksum; its latencies are simulated"):
        require_strict(path, manifest)


@pytest.mark.parametrize("name", ["/etc/passwd", "../m.onnx", "a/../m.onnx", "..", ".", "", "a/b", "a\\b", "m\0"])
def test_a_manifest_names_nothing_outside_of_its_folder(built: Path, name: str) -> None:
    fields = json.loads(built.read_bytes())
    del fields["seal"]
    fields["files"][name] = fields["files"]["m.onnx"]
    built.write_bytes(with_checksum(fields))
    with pytest.raises(TableError, match="is not a manifest"):
        verify_built(built)
