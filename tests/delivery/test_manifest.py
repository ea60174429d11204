from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.delivery.engine_manifest import is_engine_manifest, read_engine_manifest
from trt_layermerge.delivery.manifest import (
    Manifest,
    git_state,
    read_manifest,
    timing_cache_hash,
    write_manifest,
)
from trt_layermerge.errors import ExitCode, TableError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings

GOLDEN = Path(__file__).parent / "assets" / "manifest-v1.json"
VERSION_2 = GOLDEN.with_name("manifest-v2.json")


def test_version_2_is_read_for_ever_and_is_what_is_written(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", read_manifest(VERSION_2))
    assert (tmp_path / "m.json").read_bytes() == VERSION_2.read_bytes()
    assert read_manifest(tmp_path / "m.json") == read_manifest(VERSION_2)


def test_version_1_is_read_for_ever_and_written_as_version_2(tmp_path: Path) -> None:
    old = read_manifest(GOLDEN)
    write_manifest(tmp_path / "m.json", old)
    new = read_manifest(tmp_path / "m.json")
    assert (old.version, old.checksum, new.version) == (1, None, 2)
    assert new.model_copy(update={"version": 1, "checksum": None}) == old


def test_a_metric_that_is_no_accuracy_is_named_and_no_other(tmp_path: Path) -> None:
    named = read_manifest(VERSION_2).model_copy(update={"metric": "minus MSE"})
    write_manifest(tmp_path / "m.json", named)
    assert read_manifest(tmp_path / "m.json").metric == "minus MSE"
    assert b'"metric"' not in VERSION_2.read_bytes() and read_manifest(VERSION_2).metric is None


def test_a_manifest_from_before_there_were_settings_is_read() -> None:
    new = read_manifest(GOLDEN)
    uncounted = {"depth": None, "peak_activation_bytes": None}
    figures = {name: getattr(new, name).model_copy(update=uncounted) for name in ("original", "compressed")}
    assert read_manifest(GOLDEN.with_name("manifest-0.1.0.json")) == new.model_copy(update=figures)


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
    "version": (_set("version", to=3), "version"),
    "unknown field": (_set("colour", to=1), "colour"),
    "missing field": (lambda fields: fields.pop("speedup"), "speedup"),
    "text for a number": (_set("original", "latency_ms", to="fast"), "original.latency_ms"),
    "infinite": (_set("compressed", "accuracy", to=1e999), "compressed.accuracy"),
    "no hash": (_set("files", "compressed.onnx", to="abc"), "files.compressed.onnx"),
    "batch": (_set("batch", to=0), "batch"),
    "threads": (_set("device", "threads", to=0), "device: .*threads must"),
    "precision": (_set("device", "precision", to="bf16"), "device: .*precision 'bf16' is none of fp32, fp16, int8"),
    "unknown field of the device": (_set("device", "colour", to=1), "device.colour"),
    "missing field of the device": (lambda fields: fields["device"].pop("clocks"), "device.clocks"),
    "number for a text": (_set("device", "runtime", to=1), "device.runtime"),
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


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, VERSION_2.stat().st_size - 1), change=st.integers(1, 255))
def test_no_changed_byte_of_a_sealed_manifest_is_taken(tmp_path: Path, position: int, change: int) -> None:
    content = bytearray(VERSION_2.read_bytes())
    content[position] ^= change
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(VerificationError, match="its own checksum") as caught:
        read_engine_manifest(tmp_path / "m") if is_engine_manifest(tmp_path / "m") else read_manifest(tmp_path / "m")
    assert caught.value.exit_code is ExitCode.PROOF_FAILED


def test_a_batch_outside_of_its_range_is_refused(tmp_path: Path) -> None:
    fields = json.loads(GOLDEN.read_bytes()) | {"batches": [16, 32]}
    (tmp_path / "m").write_text(json.dumps(fields))
    with pytest.raises(TableError, match=r"batch \d+ is not within batches \(16, 32\)"):
        read_manifest(tmp_path / "m")


def test_the_timing_cache_of_the_build_is_hashed(tmp_path: Path) -> None:
    device = read_manifest(VERSION_2).device
    options = BuildOptions(settings=TensorRtSettings(timing_cache=tmp_path / "cache"))
    assert timing_cache_hash(device, options) is None
    (tmp_path / "cache").write_bytes(b"tactics")
    assert timing_cache_hash(device, options) == sha256(tmp_path / "cache")
    assert timing_cache_hash(replace(device, runtime="onnxruntime"), options) is None


def test_outside_of_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert git_state() is None
    monkeypatch.setenv("PATH", "")
    assert git_state() is None
