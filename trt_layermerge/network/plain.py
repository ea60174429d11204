"""What makes a tensor unfit to compute with as it is: it has no values, or not where they can be read."""

from __future__ import annotations

import torch
from torch import Tensor


def oddity(tensor: Tensor) -> str | None:
    """What is odd about a tensor, in words that go on from "is"; ``None`` for one whose numbers lie in memory."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_meta:
        return "a meta tensor, which has no values"
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.device.type != "cpu":
        return f"on {tensor.device}, not on the CPU"
    return None
