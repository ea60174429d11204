from __future__ import annotations

import pytest

from trt_layermerge.delivery.integrity import check_file
from trt_layermerge.errors import InputError, VerificationError
from trt_layermerge.files import sha256


def test_a_file_is_the_one_with_its_hash(tmp_path) -> None:
    path = tmp_path / "engine"
    with pytest.raises(InputError, match="missing"):
        check_file(path, "0" * 64)
    path.write_bytes(b"content")
    check_file(path, sha256(path))
    with pytest.raises(VerificationError, match="SHA-256"):
        check_file(path, "0" * 64)
