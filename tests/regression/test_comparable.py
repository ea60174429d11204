from __future__ import annotations

import json
from pathlib import Path

import pytest

from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.errors import TableError, VerificationError
from trt_layermerge.latency.profile import Profile
from trt_layermerge.regression.comparable import read_comparable

ASSETS = Path(__file__).parents[1] / "delivery" / "assets"
PROFILE = Path(__file__).parents[1] / "latency" / "assets" / "profile-v1.jsonl"


def test_files_are_told_apart_by_what_they_hold(tmp_path: Path) -> None:
    for source, kind in ((PROFILE, Profile), (ASSETS / "manifest-v1.json", Manifest)):
        (tmp_path / "file").write_bytes(source.read_bytes())
        assert isinstance(read_comparable(tmp_path / "file"), kind)


@pytest.mark.parametrize("content", [b"", b"notes", b"{}", b"\xff\xfe\n", b'{"format": "trt-layermerge engine"}'])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(TableError, match="is neither a profile nor the manifest"):
        read_comparable(tmp_path / "file")
    with pytest.raises(TableError, match="cannot read"):
        read_comparable(tmp_path)


def test_damage_is_named_by_who_knows_the_file(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(PROFILE.read_bytes() + b"garbage\n")
    with pytest.raises(TableError, match="line 5: the line is not JSON"):
        read_comparable(tmp_path / "p")
    fields = json.loads((ASSETS / "manifest-v2.json").read_bytes())
    (tmp_path / "m").write_text(json.dumps(fields | {"speedup": 9.0}))
    with pytest.raises(VerificationError, match="its own checksum"):
        read_comparable(tmp_path / "m")
