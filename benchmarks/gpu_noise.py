"""The normal numbers that ``torch.randn`` draws on a GPU, drawn anywhere: samples of two machines begin with the same.

It is Philox 4x32-10 (Salmon et al., SC 2011) and the transform of Box and Muller, in the order of PyTorch's CUDA
kernel: every thread draws four numbers at a time, which lie as far apart as there are threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Of 32 bits each; their products need 64."""
MULTIPLIERS, WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
LOW, SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
BLOCK = 256
AT_MOST = 132 * 2048 // BLOCK
"""Blocks at a time: 132 multiprocessors (H100 SXM, H200) of 2048 threads."""


def philox(counter: list[Words], seed: int) -> list[Words]:
    """Four words for each counter, of four words, least significant first."""
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = (np.uint64(by) * word for by, word in zip(MULTIPLIERS, counter[::2], strict=True))
        counter = [
            (second >> SHIFT) ^ counter[1] ^ np.uint64(keys[0]), second & LOW,
            (first >> SHIFT) ^ counter[3] ^ np.uint64(keys[1]), first & LOW,
        ]  # fmt: skip
        keys = [(key + more) & 0xFFFFFFFF for key, more in zip(keys, WEYL, strict=True)]
    return counter


def normal(count: int, seed: int) -> NDArray[np.float32]:
    """The first numbers of ``torch.randn(count, generator=torch.Generator("cuda").manual_seed(seed))``, ``[count]``."""
    threads = BLOCK * min(AT_MOST, -(-count // BLOCK))
    rounds = -(-count // (4 * threads))
    thread, zero = np.arange(threads, dtype=np.uint64), np.zeros(threads, np.uint64)
    drawn = []
    for number in range(rounds):
        words = philox([zero + np.uint64(number), zero, thread, zero], seed)
        for first, second in (words[:2], words[2:]):
            length = np.sqrt(-2 * np.log((first + 0.5) / 2**32))
            angle = (second + 0.5) / 2**32 * 2 * np.pi
            drawn += [length * np.sin(angle), length * np.cos(angle)]
    return np.concatenate(drawn)[:count].astype(np.float32)
