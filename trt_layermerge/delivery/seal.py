"""A seal is a field of a JSON file that holds the hash of all the rest of it, so that a single changed byte shows."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from trt_layermerge.errors import VerificationError

_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')


def sealed(fields: dict[str, Any]) -> bytes:
    """A JSON object for people to read, with its seal as the last field."""
    text = json.dumps({**fields, "seal": _UNSEALED}, indent=2, allow_nan=False) + "\n"
    return text.replace(_UNSEALED, _hash(text.encode())).encode()


def require_seal(path: Path, data: bytes) -> None:
    """See that a file holds what it was sealed with.

    Args:
        path: Where it lies, for the message.
        data: Its bytes.

    Raises:
        VerificationError: A byte of it has changed, or it never had a seal.
    """
    found = _SEAL.search(data)
    if found is None or _hash(data.replace(found[1], _UNSEALED.encode())).encode() != found[1]:
        raise VerificationError(
            f"{path} is not the file that was delivered: it does not fit its own seal",
            hint="copy it again, or build the engine anew",
        )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
