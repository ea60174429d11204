from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.delivery import manifest
from trt_layermerge.delivery.manifest import Manifest, git_state, read_manifest, versions, write_manifest
from trt_layermerge.errors import ExitCode, TableError

GOLDEN = Path(__file__).parent / "assets" / "manifest-v1.json"


def test_version_1_is_read_for_ever_and_is_what_is_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", read_manifest(GOLDEN))
    assert (tmp_path / "m.json").read_bytes() == GOLDEN.read_bytes()
    assert read_manifest(tmp_path / "m.json") == read_manifest(GOLDEN)


def test_a_manifest_from_before_depth_was_counted_is_read(tmp_path: Path) -> None:
    fields = json.loads(GOLDEN.read_bytes())
    for figures in (fields["original"], fields["compressed"]):
        del figures["depth"], figures["peak_activation_bytes"]
    del fields["proof"]["refitted_layers"]
    (tmp_path / "m.json").write_text(json.dumps(fields))
    manifest = read_manifest(tmp_path / "m.json")
    assert manifest.original.depth is None and manifest.proof.refitted_layers == {}


def _set(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        for name in path[:-1]:
            fields = fields[name]
        fields[path[-1]] = to

    return change


def _hash_named(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda fields: fields["files"].update({name: "0" * 64})


MALFORMED = {
    "format": (_set("format", to="x"), "format"),
    "version": (_set("version", to=2), "version"),
    "unknown field": (_set("colour", to=1), "colour"),
    "missing field": (lambda fields: fields.pop("speedup"), "speedup"),
    "text for a number": (_set("original", "latency_ms", to="fast"), "original.latency_ms"),
    "infinite": (_set("compressed", "accuracy", to=1e999), "compressed.accuracy"),
    "no hash": (_set("files", "compressed.onnx", to="abc"), "files.compressed.onnx"),
    "batch": (_set("batch", to=0), "batch"),
    "threads": (_set("device", "threads", to=0), "device.threads"),
    "unhashed engine": (_set("engine", to="other.onnx"), "no hash of other.onnx"),
    "above": (_set("engine", to="../engine.onnx"), "engine"),
    "parent": (_set("checks", to=".."), "checks"),
    "absolute": (_set("onnx", to="/etc/passwd"), "onnx"),
    "below": (_set("onnx", to="a/b"), "onnx"),
    "line end": (_set("onnx", to="compressed.onnx\n"), "onnx"),
    "hashed above": (_hash_named("../x"), "files"),
    "hashed parent": (_hash_named(".."), "files"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_manifest_is_refused_and_the_field_named(tmp_path: Path, name: str) -> None:
    change, field = MALFORMED[name]
    fields = json.loads(GOLDEN.read_bytes())
    change(fields)
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    with pytest.raises(TableError, match=rf"manifest\.json is not a manifest: .*{field}") as caught:
        read_manifest(tmp_path / "manifest.json")
    assert caught.value.exit_code is ExitCode.BAD_INPUT


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(TableError, match="is not a manifest"):
        read_manifest(tmp_path / "m")


def test_a_manifest_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"cannot read the manifest .*: No such file"):
        read_manifest(tmp_path / "m")
    with pytest.raises(TableError, match=r"cannot read the manifest .*: Is a directory"):
        read_manifest(tmp_path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, GOLDEN.stat().st_size - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused_in_words(tmp_path: Path, position: int, byte: int) -> None:
    content = bytearray(GOLDEN.read_bytes())
    content[position] = byte
    (tmp_path / "m").write_bytes(content)
    try:
        assert isinstance(read_manifest(tmp_path / "m"), Manifest)
    except TableError as error:
        assert "is not a manifest" in error.message


def test_versions_name_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"python", "torch", "onnx", "onnxruntime"} <= versions().keys()
    monkeypatch.setattr(manifest, "PACKAGES", ("no-such-package",))
    assert versions().keys() == {"python"}


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    monkeypatch.setenv("PATH", "")
    assert git_state() is None
