"""Files that survive a kill: whole files by rename, lines by one write and one fsync; and hashes of files.

JSON and TOML go through one gate, ``parse_json`` and ``parse_toml``, for who wrote them is not known: it bounds size,
depth and numbers, and lets no text pass that is no path and cannot be printed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from trt_layermerge.errors import InputError
from trt_layermerge.locks import lock, locked_by_nobody

MOST_BYTES = 1 << 28
"""Of a file that is read as a whole; the largest profile has a thousandth of it."""

_DEEPEST, _LARGEST = 64, 1e100
"""Levels of lists, of tables twice, and the size of a number; sums and ratios of these are finite still."""


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


def require_replaceable(path: Path) -> None:
    """See that no device, pipe or socket is where a file is to be: that would be gone, for everybody.

    Raises:
        InputError: There is one.
    """
    if any((path.is_char_device(), path.is_block_device(), path.is_fifo(), path.is_socket())):
        raise InputError(f"cannot write to {path}: it is a device, a pipe or a socket", hint="name a file")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to; on success it is fsynced and takes the place of ``path``.

    What a killed process left of an earlier try is removed.

    Raises:
        InputError: ``path`` is none that a file may take the place of.
    """
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    neighbour, handle = _neighbour(path)
    try:
        yield neighbour
        _fsync(neighbour)
        os.replace(neighbour, path)
        _fsync(path.parent)  # the rename itself
    finally:
        neighbour.unlink(missing_ok=True)
        os.close(handle)


def _neighbour(path: Path) -> tuple[Path, int]:
    """A new file beside another one, locked while it is open, so that nobody takes it for what a kill left."""
    while True:
        # Not tempfile's, which are private and would have to be opened up whatever the umask says.
        neighbour = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(8)}{path.suffix}")
        handle = os.open(neighbour, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            lock(handle, path.parent)
            if os.fstat(handle).st_nlink:  # else somebody was between the two lines above
                return neighbour, handle
        except BaseException:
            neighbour.unlink(missing_ok=True)
            os.close(handle)
            raise
        os.close(handle)


def _remove_left(path: Path) -> None:
    """Remove neighbours that no process is writing to; none of this must keep anybody from writing."""
    named = re.compile(rf"\.{re.escape(path.stem[:100])}\.[0-9a-f]{{16}}{re.escape(path.suffix)}")
    for left in [one for one in path.parent.iterdir() if named.fullmatch(one.name)]:
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                if locked_by_nobody(handle):
                    left.unlink()
            finally:
                os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file: after a kill it holds either the old content or the new."""
    with replacing(path) as neighbour:
        neighbour.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people to read: indented, in the order of its keys, with a last newline."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def append_text(path: Path, text: str) -> None:
    """Append to a text that several programs write, with one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write(text.encode())


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
        lock(file.fileno(), path, wait=True)  # closing lets it go
        size = _cut_torn_line(file.fileno())
        file.write((f"{line}\n" if size else f"{first}\n{line}\n").encode())
        file.flush()
        os.fsync(file.fileno())
    if not size:
        _fsync(path.parent)  # the new name itself


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file that is small enough, whatever it says its size is.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger, a pipe, or there cannot be such a path; the message goes on from the file's name.
    """
    if "\0" in str(path):
        raise ValueError("is no path: it has a NUL in it")
    require_no_pipe(path)
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"is larger than {most / 1e6:.0f} MB")
    return data


def require_no_pipe(path: Path) -> None:
    """See that a file is none that whoever opens it may wait for without end.

    Raises:
        OSError: There is none.
        ValueError: It is a pipe, and not one that a shell hands over: ``<(command)``, or standard input.
    """
    if stat.S_ISFIFO(path.stat().st_mode) and not str(path).startswith(("/dev/fd/", "/dev/stdin", "/proc/")):
        raise ValueError("is a pipe that nobody may ever write to")


def parse_json(data: bytes | str) -> Any:
    """The JSON value of a file or of a line of one.

    Raises:
        ValueError: It is none, or has what no file of ours has; the message goes on from the file's name.
    """
    try:
        value = json.loads(_text(data), parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {_fault(error)}") from error
    _require_modest(value)
    return value


def parse_toml(data: bytes) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        ValueError: As for JSON.
    """
    try:
        value = tomllib.loads(_text(data))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not TOML: {_fault(error)}") from error
    _require_modest(value)
    return value


def _fault(error: ValueError) -> str:
    """What is wrong, without Python's advice to its programmers."""
    return "a number has too many digits" if "set_int_max_str_digits" in str(error) else str(error)


def _text(data: bytes | str) -> str:
    try:
        return data.decode() if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in UTF-8: {error.reason} at byte {error.start}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse_constant(text[:20])


def _require_modest(value: Any) -> None:
    """See that a value is not too deep, and that its numbers and texts can be worked with.

    Raises:
        ValueError: It is, or they cannot.
    """
    level = [value]
    for _ in range(_DEEPEST):
        for one in level:
            if isinstance(one, str):
                _require_printable(one)
            elif isinstance(one, (int, float)) and _LARGEST < abs(one) < math.inf:
                raise ValueError("has a number beyond any measure")
        several = [one for one in level if isinstance(one, (dict, list, tuple))]
        level = [inner for one in several for inner in (one.items() if isinstance(one, dict) else one)]
    if level:
        raise ValueError("is nested too deeply")


def _require_printable(text: str) -> None:
    if "\0" in text:
        raise ValueError(f"has a NUL in {text[:100]!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has a character that is none in {text[:100]!r}") from error


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
