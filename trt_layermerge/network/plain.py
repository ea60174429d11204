"""What makes a tensor unfit to compute with as it is: it has no values, or not where they can be read."""

from __future__ import annotations

from collections.abc import Mapping

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


def weight_faults(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Why the tensors of a checkpoint cannot be a model's weights, whatever their shapes; empty where they can.

    Args:
        state: The checkpoint's.
        expected: The model's, whose real numbers may be of another width in the checkpoint.
    """
    odd = [f"{name} is {what}" for name, value in state.items() if (what := oddity(value))]
    return odd or [
        f"{name} is of {state[name].dtype} in the file, of {value.dtype} in the model"
        for name, value in expected.items()
        if name in state and state[name].is_floating_point() != value.is_floating_point()
    ]
