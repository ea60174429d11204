"""Filters in front of a batch norm, as long as training had them.

The norm takes their length out of what they compute, but not out of how they learn: a step turns a filter by the
inverse square of its length (van Laarhoven, arXiv 1706.05350). Training ends with lengths at which all layers turn
alike. What is solved is as long as it happens to come out: at one rate some filters are thrown about while others stand
still.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def filter_length(weight: Float[Tensor, "out in height width"]) -> float:
    """The median over a layer's filters, which those that have died in training do not change; 0 where most have."""
    return float(_lengths(weight).median())


def scales_to(length: float, weight: Float[Tensor, "out in height width"]) -> Float[Tensor, " out"]:
    """What makes every filter so long, float64; 1 for those of zeros, and for all where the length is 0."""
    lengths = _lengths(weight)
    return torch.where(lengths > 0, length / lengths, 1.0) if length > 0 else torch.ones_like(lengths)


def _lengths(weight: Tensor) -> Tensor:
    return weight.detach().double().flatten(1).norm(dim=1)
