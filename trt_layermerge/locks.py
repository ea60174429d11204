"""Locks between processes. They end with the process that holds them, however that ends, so that none is ever stale.

Where a file system has none, work goes on without, and that is said.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trt_layermerge.errors import InputError, say

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def exclusive(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for the same folder out of it.

    Args:
        folder: Made where there is none.
        wait: Whether to wait for a process that is in it, which is said.

    Raises:
        InputError: Another process is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not lock(handle, folder):
            other = holder(handle)
            if not wait:
                raise InputError(
                    f"{other} is at work in {folder}", hint="wait for it, or name another folder with --output"
                )
            say(f"waiting for {other} at work in {folder}")
            lock(handle, folder, wait=True)
        yield
    finally:
        os.close(handle)


def lock(handle: int, where: Path, *, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; whether that could be done, or there are no locks to have."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(f"the file system of {where} has no locks: see that no other process writes there")
    return True


def locked_by_nobody(handle: int) -> bool:
    """Whether no process has locked an open file; where nobody can tell, somebody might have."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def holder(handle: int) -> str:
    """Who has locked an open file, as far as the system tells."""
    try:
        inode = f":{os.fstat(handle).st_ino}"
        held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        number = next(parts[4] for parts in held if parts[1] == "FLOCK" and parts[5].endswith(inode))
        command = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, IndexError, StopIteration):
        return "another process"
    return f"another process, {number} ({command[:200]}),"
