"""TensorRT's timing cache on disk: what one build has timed no other times again, in whatever process.

One file for each device and version of TensorRT. A build reads it, and adds what it has timed under a lock, so that
builds at once lose nothing of each other's. Such a cache is never needed: one that TensorRT refuses is set aside under
another name, and one that cannot be written is not. Replayed, a cache decides alone: it is not written, and must fit.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trt_layermerge import files
from trt_layermerge.errors import IncompatibleError, InputError
from trt_layermerge.locks import lock

if TYPE_CHECKING:
    import tensorrt as trt

FILL = "the same command without --cache-only, on the device that it is for, fills the cache"


def default_path(device: str, compute_capability: str, library: str, suffix: str = "timing") -> Path:
    """Where the cache of a device and a library, such as ``tensorrt 10.9``, lies, in the user's cache folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = re.sub(r"[^a-z0-9.]+", "-", f"{device} sm{compute_capability} {library}".lower()).strip("-")
    return root / "trt_layermerge" / f"{name}.{suffix}"


def cache_digest(path: Path) -> str:
    """SHA-256 of a cache that is to be replayed.

    Raises:
        InputError: It cannot be read.
    """
    return hashlib.sha256(_required(path)).hexdigest()


def replay(path: Path, expected: str, config: trt.IBuilderConfig) -> None:
    """Let a build choose its tactics by a cache, and by nothing else.

    Args:
        path: The cache.
        expected: Its SHA-256 when the command began.
        config: Of the build; whoever builds sees to it that a tactic which is not in the cache is an error.

    Raises:
        InputError: It cannot be read.
        IncompatibleError: It has changed since, is damaged, or is of another device or release.
    """
    data = _required(path)
    if hashlib.sha256(data).hexdigest() != expected:
        raise IncompatibleError(
            f"the timing cache {path} has changed since it was first read, and it decides what is built",
            hint="run the command again when nothing writes the file any more",
        )
    cache = _parsed(data, config)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise IncompatibleError(
            f"the timing cache {path} cannot be replayed: it is damaged, or of another device or release of TensorRT",
            hint=FILL,
        )


def read_into(path: Path, config: trt.IBuilderConfig) -> str | None:
    """Give a build what was timed before.

    Returns:
        Why the cache was set aside, in words; ``None`` where it was not.
    """
    data = _read(path)
    cache = _parsed(data, config)
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    empty = config.create_timing_cache(b"")
    config.set_timing_cache(empty, ignore_mismatch=False)
    if not data:
        return None
    aside = path.with_name(f"{path.name}.refused")
    try:
        os.replace(path, aside)
    except OSError:
        return f"the timing cache {path} is of no use to this build and was left alone"
    return f"the timing cache {path} is damaged or of another device or release; it is {aside.name} now"


def save(path: Path, config: trt.IBuilderConfig) -> str | None:
    """Add to the cache what a build has timed.

    Returns:
        Why it could not be, in words; ``None`` where it was.
    """
    cache = config.get_timing_cache()
    if cache is None:
        return None
    try:
        with locked(path):
            # Others may have added to it since it was read.
            there = _parsed(_read(path), config)
            if there is not None:
                cache.combine(there, ignore_mismatch=False)
            files.write_bytes(path, bytes(cache.serialize()))
    except OSError as error:
        return f"the timing cache {path} cannot be written: {error.strerror}"
    return None


def _parsed(data: bytes, config: trt.IBuilderConfig) -> trt.ITimingCache | None:
    """A cache from its bytes; ``None`` where TensorRT does not take them.

    It says so in three ways: nothing, an exception, or a word in its log and a cache that is as empty as a new one.
    """
    if not data:
        return None
    try:
        cache, empty = config.create_timing_cache(data), config.create_timing_cache(b"")
    except (RuntimeError, TypeError, ValueError):
        return None
    if cache is not None and bytes(cache.serialize()) == (nothing := bytes(empty.serialize())) and data != nothing:
        return None
    return cache


def _required(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the timing cache {path}: {error.strerror}", hint=FILL) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes from the cache; the lock is a file beside it, for the cache itself is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "ab") as file:
        lock(file.fileno(), path, wait=True)  # closing lets it go
        yield
