"""Files that survive a kill: whole files by rename, lines by one write and one fsync; and hashes of files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trt_layermerge.errors import InputError


def require_writable(folder: Path) -> None:
    """See that files can be written to a folder, which is made only when the first one is.

    Raises:
        InputError: They cannot.
    """
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write to {folder}: {existing} is not a folder", hint="name another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {folder}: no permission to write to {existing}", hint="name another folder")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same folder out of it; the lock ends with the process, however that ends.

    Raises:
        InputError: Another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is at work in {folder}", hint="wait for it, or name another folder with --output"
            ) from error
        yield
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to; on success it is fsynced and takes the place of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    neighbour = Path(name)
    try:
        yield neighbour
        _fsync(neighbour)
        os.chmod(neighbour, 0o644)  # mkstemp makes it private; what we write is to be shared
        os.replace(neighbour, path)
        _fsync(path.parent)  # the rename itself
    finally:
        neighbour.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file: after a kill it holds either the old content or the new."""
    with replacing(path) as neighbour:
        neighbour.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read: indented, in the order of its keys, with a last newline."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def append_line(path: Path, line: str, *, first: str) -> None:
    """Append one line with one write and one fsync; a torn last line of an earlier kill is cut off first.

    Processes that append to the same file take turns, so none cuts what another is writing.

    Args:
        path: The file; made where there is none.
        line: What to append, without its newline.
        first: The line that begins an empty file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing lets it go
        size = _cut_torn_line(file.fileno())
        file.write((f"{line}\n" if size else f"{first}\n{line}\n").encode())
        file.flush()
        os.fsync(file.fileno())
    if not size:
        _fsync(path.parent)  # the new name itself


def sha256(path: Path) -> str:
    """Hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut_torn_line(handle: int) -> int:
    """Cut off what follows the last newline; the size of what is left."""
    end = size = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(handle, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
    return end


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
