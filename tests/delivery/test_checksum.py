from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.delivery.checksum import require_checksum, with_checksum
from trt_layermerge.errors import VerificationError

FIELDS = {"name": "engine", "shape": [1, 3], "nothing": None, "zeros": "0" * 63}


def test_what_was_sealed_is_whole() -> None:
    data = with_checksum(FIELDS)
    require_checksum(Path("file"), data)
    assert json.loads(data) | FIELDS == json.loads(data) and data.endswith(b"\n")


@given(offset=st.integers(0, len(with_checksum(FIELDS)) - 1), change=st.integers(1, 255))
def test_a_single_changed_byte_breaks_the_seal(offset, change) -> None:
    data = bytearray(with_checksum(FIELDS))
    data[offset] ^= change
    with pytest.raises(VerificationError, match="somewhere"):
        require_checksum(Path("somewhere"), bytes(data))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"seal": "none"}', b"\xff\xfe"])
def test_a_file_without_a_seal_is_refused(data) -> None:
    with pytest.raises(VerificationError):
        require_checksum(Path("file"), data)
