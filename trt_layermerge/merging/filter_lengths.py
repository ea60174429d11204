"""Filters in front of a batch norm, no shorter than training had them.

The norm takes their length out of what they compute, but not out of how they learn: a step turns a filter by the
inverse square of its length (van Laarhoven, arXiv 1706.05350). Training ends with lengths that its rates suit. What is
solved is as long as it happens to come out: filters that are shorter are thrown about by the first steps. Those that
are longer learn more slowly, which does no harm to what is nearly right.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def filter_length(weight: Float[Tensor, "out in height width"]) -> float:
    """The median over a layer's filters, which those that have died in training do not change; 0 where most have."""
    return float(_lengths(weight).median())


def lengthening(length: float, weight: Float[Tensor, "out in height width"]) -> Float[Tensor, " out"]:
    """What makes every filter at least so long, float64; 1 for those that are, and for those of zeros."""
    lengths = _lengths(weight)
    return torch.where(lengths > 0, length / lengths, 1.0).clamp_min(1.0)


def _lengths(weight: Tensor) -> Tensor:
    lengths: Tensor = weight.detach().double().flatten(1).norm(dim=1)
    return lengths
