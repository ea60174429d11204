"""A checksum: a field of a JSON file that holds the hash of all the rest of it, so that one changed byte shows.

The field is called ``seal``, as in all files of the formats that have it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from trt_layermerge.errors import VerificationError

_BLANK = "0" * 64
FIELD = "seal"
"""Name of the field on disk."""

_CHECKSUM = re.compile(rf'"{FIELD}": "([0-9a-f]{{64}})"'.encode())


def with_checksum(fields: dict[str, Any]) -> bytes:
    """A JSON object for people to read, with its checksum as the last field."""
    text = json.dumps({**fields, FIELD: _BLANK}, indent=2, allow_nan=False) + "\n"
    return text.replace(_BLANK, _hash(text.encode())).encode()


def require_checksum(path: Path, data: bytes) -> None:
    """See that a file holds what it was written with.

    Args:
        path: Where it lies, for the message.
        data: Its bytes.

    Raises:
        VerificationError: A byte of it has changed, or it never had a checksum.
    """
    found = _CHECKSUM.search(data)
    if found is None or _hash(data.replace(found[1], _BLANK.encode())).encode() != found[1]:
        raise VerificationError(
            f"{path} is not the file that was delivered: it does not fit its own checksum",
            hint="copy it again, or build the engine again",
        )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
