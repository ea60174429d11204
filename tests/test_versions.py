from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from trt_layermerge import versions
from trt_layermerge.versions import source_checksum


def test_versions_name_what_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"python", "torch", "onnx", "onnxruntime"} <= versions.versions().keys()
    monkeypatch.setattr(versions, "PACKAGES", ("no-such-package",))
    assert versions.versions().keys() == {"python"}


def test_the_checksum_is_of_the_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(versions.__file__).parent, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    before = source_checksum()
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "copy" / "versions.py"))
    assert source_checksum() == before, "wherever it lies"
    (tmp_path / "copy" / "notes.txt").write_text("none of it")
    assert source_checksum() == before
    (tmp_path / "copy" / "files.py").rename(tmp_path / "copy" / "other.py")
    assert source_checksum() != before
