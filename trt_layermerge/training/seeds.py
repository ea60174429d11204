"""One generator seed from several small numbers, so that every step's randomness depends on its number alone."""

from __future__ import annotations

from hashlib import blake2b


def mixed_seed(*numbers: int) -> int:
    """A well-spread seed in 0..2**63-1; the same on every machine and Python, another one for any other numbers.

    Raises:
        OverflowError: A number does not fit in 64 bits, signed.
    """
    packed = b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "little") >> 1  # torch's generators are signed
