"""Engines compiled for SM75 without one, with their manifests."""

from __future__ import annotations

from dataclasses import asdict

import onnx
import pytest

from tests.delivery.test_engines import changed
from trt_layermerge.delivery.engine_manifest import manifest_path, read_engine_manifest
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.errors import IncompatibleError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import small_model

rtx = pytest.importorskip("tensorrt_rtx", reason="needs pip install 'tensorrt-rtx-cu12>=1.7.1'")


@pytest.fixture
def compiled(tmp_path):
    """The manifest of an engine for SM75."""
    onnx.save(small_model(), tmp_path / "model.onnx")
    engine = tmp_path / "model.engine"
    build_engine(tmp_path / "model.onnx", get_runtime("tensorrt-rtx"), BuildOptions(), {}, engine)
    return manifest_path(engine)


def test_reads_version_and_target_back(compiled) -> None:
    found = verify_built(compiled)
    assert found.files == 2 and found.device.name == "SM75 (ahead of time)"
    assert found.device.runtime == "tensorrt-rtx:sm75" and found.device.runtime_version == rtx.__version__


@pytest.mark.parametrize("offset", [0, 16, 24, 32, 64, 5000, -1])
def test_a_flipped_byte_is_found(compiled, offset) -> None:
    engine = compiled.with_name("model.engine")
    data = bytearray(engine.read_bytes())
    data[offset] ^= 1
    engine.write_bytes(data)
    with pytest.raises(VerificationError, match=r"model\.engine"):
        verify_built(compiled)


def test_an_engine_for_another_target_is_found_though_all_hashes_fit(compiled) -> None:
    engine = compiled.with_name("model.engine")
    get_runtime("tensorrt-rtx:sm86").build(small_model(), BuildOptions()).save(engine)
    files = read_engine_manifest(compiled).files
    changed(compiled, files=files | {"model.engine": sha256(engine)})
    with pytest.raises(IncompatibleError, match="compiled for sm86"):
        verify_built(compiled)


def test_an_engine_of_another_version_is_found(compiled) -> None:
    device = asdict(read_engine_manifest(compiled).device)
    changed(compiled, device=device | {"runtime_version": "1.8.0.1"})
    with pytest.raises(IncompatibleError, match=r"1\.8\.0\.1"):
        verify_built(compiled)
