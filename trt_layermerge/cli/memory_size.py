"""Sizes of memory as people write them."""

from __future__ import annotations

import re
from typing import Any

import click

LEAST = 256 << 20
"""Bytes; what a network takes beside them is told once it is loaded."""

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def read_size(_ctx: click.Context, _param: click.Parameter, text: Any) -> int | None:
    """Read a size of memory, in bytes: ``4GiB``, ``4G`` for the same, ``500MB`` of 1000 bytes a kB."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?b?)", str(text).strip().lower())
    if found is None:
        raise click.BadParameter(f"{text!r} is not a size like 4GiB or 500MB")
    number, letter, unit = found.groups()
    size = int(float(number) * (1000 if unit == "b" else 1024) ** _POWERS[letter])
    if size < LEAST:
        raise click.BadParameter(f"{text} is less than Python and torch take themselves; begin at {LEAST >> 20}MiB")
    return size
