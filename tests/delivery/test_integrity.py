from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.delivery.integrity import check_file, device_differences
from trt_layermerge.delivery.manifest import read_manifest
from trt_layermerge.errors import InputError, VerificationError
from trt_layermerge.files import sha256

GOLDEN = Path(__file__).parent / "assets" / "manifest-v1.json"
VERSION_2 = GOLDEN.with_name("manifest-v2.json")


def test_a_file_is_the_one_with_its_hash(tmp_path) -> None:
    path = tmp_path / "engine"
    with pytest.raises(InputError, match="missing"):
        check_file(path, "0" * 64)
    path.write_bytes(b"content")
    check_file(path, sha256(path))
    with pytest.raises(VerificationError, match="SHA-256"):
        check_file(path, "0" * 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "RTX 3090"}, "name: NVIDIA GeForce RTX 2080 Ti, here RTX 3090"),
        ({"compute_capability": "8.6"}, "compute_capability: 7.5, here 8.6"),
        ({"runtime_version": "10.16.1.12"}, "runtime_version: 10.16.1.11, here 10.16.1.12"),
        ({"driver": "535.99"}, "driver: 550.54.14 or newer, here 535.99"),
        ({"driver": None}, "driver: 550.54.14 or newer, here None"),
        ({"precision": "fp32"}, "precision: fp16, here fp32"),
        ({"simulated": True}, "simulated: False, here True"),
        ({"driver": "551.0"}, None),
        ({"clocks": "locked at 1350 MHz", "threads": 4, "settings": "other"}, None),
    ],
)
def test_what_decides_whether_an_engine_may_load_is_compared(change: dict[str, Any], words: str | None) -> None:
    built = read_manifest(VERSION_2).device
    found = device_differences(built, replace(built, **change))
    assert found == ([] if words is None else [words])


def test_an_old_manifest_says_nothing_of_the_compute_capability() -> None:
    built = read_manifest(GOLDEN).device
    assert device_differences(built, replace(built, compute_capability="7.5")) == []


def test_a_link_is_not_the_file_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"content")
    (tmp_path / "engine").symlink_to(tmp_path / "real")
    with pytest.raises(VerificationError, match="symbolic link"):
        check_file(tmp_path / "engine", sha256(tmp_path / "real"))
