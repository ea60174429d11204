"""Reading what people write for an option: shapes, shares, numbers, pairs; callbacks of click."""

from __future__ import annotations

import re

import click


def read_shape(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    """Read a shape as people write it: ``3x224x224``."""
    if text is None:
        return None
    sizes = text.split("x")
    if not all(re.fullmatch(r"[0-9]{1,9}", size) and int(size) > 0 for size in sizes):
        raise click.BadParameter(f"{text!r} is not a shape like 3x224x224")
    return tuple(int(size) for size in sizes)


def read_share(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """Read a share as people write it: ``5%`` or ``0.05``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(%?)", text.strip())
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{text!r} is no share above 0 %; write 5% or 0.05")
    return share


def read_numbers(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Read numbers as people write them: ``0.485,0.456,0.406``."""
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not numbers like 0.485,0.456,0.406") from None


def read_pairs(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[tuple[str, str], ...]:
    """Read ``boxes=error,scores=logits``."""
    pairs = [part.strip().rpartition("=") for part in (text or "").split(",") if part.strip()]
    if not all(name and kind for name, _, kind in pairs):
        raise click.BadParameter(f"{text!r} is not like boxes=error,scores=logits")
    return tuple((name, kind) for name, _, kind in pairs)
