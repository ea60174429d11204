"""Memory that torch frees, and takes again in the next operation, stays with this process.

The C library gives large blocks, and the end of its heap, back to the kernel as soon as they are freed. In the next
operation each of their pages is mapped and zeroed anew: on a CPU that is a third of a forward pass of a batch
(docs/experiments/cores.md).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``: free bytes at the heap's end, and bytes of a block, that go back to the kernel."""

MOST = (1 << 31) - 1
"""The largest value of a parameter, 2 GiB."""


@contextmanager
def heap_kept() -> Iterator[None]:
    """Inside, what is freed stays with the process; what is free at the end is given back.

    Only with glibc; another C library goes on as it does.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD):
        libc.mallopt(parameter, MOST)
    try:
        yield
    finally:
        libc.malloc_trim(0)


def give_back() -> None:
    """Give what is free at this moment back to the system: elsewhere it could be of use, or a limit is near."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
