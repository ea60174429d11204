"""Folders among the system's temporary ones, each claimed by one process for as long as it lives.

A worker claims one for its device, so that no worker of another fleet measures beside it, and one for its files. A
process that ends removes what it claimed; what a killed one has left is known by its lock, which is gone.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.locks import holder, lock, locked_by_nobody

PREFIX = "lm-fleet-"
_LONGEST = 25
"""Characters of a folder in which Ray's sockets still have a path that the system takes."""


@dataclass(frozen=True)
class Claim:
    """A folder that this process holds. ``claim`` makes it."""

    path: Path
    handle: int

    def release(self) -> None:
        """Remove the folder, and let it go."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.handle)


class ClaimedError(Exception):
    """Another process holds the folder; the text says which."""


def claim(name: str) -> Claim:
    """Claim the folder of a name.

    Raises:
        ClaimedError: Another process holds it.
    """
    path = _root() / f"{PREFIX}{name}"
    while True:
        path.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):  # who held it has removed it: make it again
            handle = os.open(path, os.O_RDONLY)
            if not lock(handle, path):
                other = holder(handle)
                os.close(handle)
                raise ClaimedError(other)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):
                    return Claim(path, handle)
            os.close(handle)


def claim_new() -> Claim:
    """Claim a folder that nobody knows of."""
    return claim(secrets.token_hex(3))


def remove_left() -> None:
    """Remove folders whose processes have ended without doing so."""
    for path in _root().glob(f"{PREFIX}*"):
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                if locked_by_nobody(handle):
                    shutil.rmtree(path)
            finally:
                os.close(handle)


def _root() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= _LONGEST else Path("/tmp")
