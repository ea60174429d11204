"""Memory that is freed is kept inside, and given back at the end."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from trt_layermerge.resources.heap import heap_kept

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc"
)
BLOCK = 64 << 20
"""Bytes, more than what glibc keeps of itself."""

WARM_UP = 24
"""Blocks after which a heap has settled. Aligned blocks leave slivers in front of them, and glibc caches up to seven of
each size instead of joining them: until then each block is taken behind the last one, from pages that are new."""


def faults(blocks: int) -> int:
    """Pages that were mapped anew while so many blocks were taken, written and freed, one after the other."""
    import resource  # only where there is Unix

    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    for _ in range(blocks):
        torch.empty(BLOCK, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@glibc
def test_most_blocks_that_are_freed_are_taken_again_without_new_pages() -> None:
    with heap_kept():
        faults(WARM_UP)
        assert faults(8) < 4 * BLOCK // 4096


@glibc
def test_what_is_free_at_the_end_is_given_back() -> None:
    with heap_kept():
        blocks = [torch.empty(BLOCK, dtype=torch.uint8).fill_(1) for _ in range(4)]
        del blocks
        inside = resident()
    assert resident() <= inside - 3 * BLOCK


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with heap_kept():
        assert torch.ones(2).sum() == 2
