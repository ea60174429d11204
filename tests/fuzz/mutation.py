"""Mutated files: a function of valid ones, a structure and a seed, so that a seed is all there is to write down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Structure = Callable[[Random, bytes], bytes]
"""Makes a change that byte by byte would hardly come up; raises where the bytes no longer have the structure."""

_BYTES = [0, 1, 9, 10, 13, 32, 34, 44, 45, 46, 48, 57, 91, 92, 123, 127, 128, 254, 255]
_WORDS = [0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 1 << 40, 1 << 60]


def mutate(seed: int, name: str, samples: Sequence[bytes], structure: Structure | None) -> bytes:
    """The input of a seed: a sample, changed in its structure, in its bytes, or in both."""
    rng = Random(f"{name} {seed}")
    data = rng.choice(samples)
    by_structure = structure is not None and rng.random() < 0.7
    if structure is not None and by_structure:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            try:
                data = structure(rng, data)
            except Exception:  # an earlier change left nothing to parse
                break
    if not by_structure or rng.random() < 0.1:
        for _ in range(rng.choice([1, 1, 2, 4, 16])):
            data = rng.choice(CHANGES)(rng, data, samples)
    return data


def _place(rng: Random, data: bytes) -> int:
    """Somewhere, more often near the beginning, where headers are."""
    return rng.randrange(min(len(data), rng.choice([16, 256, len(data)])) + 1) if data else 0


def _flip(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([value ^ 1 << rng.randrange(8) for value in data[at : at + 1]]) + data[at + 1 :]


def _overwrite(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([rng.choice(_BYTES)]) + data[at + 1 :]


def _word(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, size = _place(rng, data), rng.choice([2, 4, 8])
    word = rng.choice(_WORDS) % (1 << 8 * size)
    return data[:at] + word.to_bytes(size, rng.choice(["little", "big"])) + data[at + size :]


def _truncate(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    return (
        data[: _place(rng, data)] if rng.random() < 0.5 else data[: len(data) - rng.randrange(min(len(data), 40) + 1)]
    )


def _delete(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice([1, 4, 64, 1024]) :]


def _repeat(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at, size = _place(rng, data), rng.choice([1, 8, 64, 512])
    return data[:at] + data[at : at + size] * rng.choice([2, 2, 3, 300]) + data[at + size :]


def _insert(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice([1, 2, 8, 100])) + data[at:]


def _splice(rng: Random, data: bytes, samples: Sequence[bytes]) -> bytes:
    other = rng.choice(samples)
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _swap(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    first, second, third = sorted(_place(rng, data) for _ in range(3))
    return data[:first] + data[second:third] + data[first:second] + data[third:]


def _line(rng: Random, data: bytes, _: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at : at + 1] = rng.choice(
        [[], [lines[at]] * 2, [lines[at], b""], [lines[at] + b"\r"], [lines[-1], lines[at]]]
    )
    return b"\n".join(lines)


CHANGES = (_flip, _flip, _overwrite, _word, _truncate, _delete, _repeat, _insert, _splice, _swap, _line)
