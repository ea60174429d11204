"""Which channels of a group stay: those from which its consumers can best make what they made of all of them.

A consumer is linear in what it reads, so what it loses with some channels, once its other weights are solved again, is
known in closed form from the Gram matrix of its patches. Channels come one by one, each time the one that takes away
most of what is still lost, which gives one order for all widths: a block Cholesky factorisation of the matrix, pivoted
by what consumers make of it (orthogonal matching pursuit). He, Zhang and Sun (arXiv 1707.06168) choose by the same loss
with a lasso, LinDeps (arXiv 2507.21573) by a pivoted factorisation of what consumers read, whatever they make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from trt_layermerge.merging.narrowing import entries_of
from trt_layermerge.merging.ridge import RIDGE


@dataclass(frozen=True)
class Reading:
    """What one consumer reads of a group and what it makes of it, float64.

    Attributes:
        gram: Mean over patches of ``p p^T``, centred; each channel's entries stand in a row.
        means: Mean patch.
        weight: The consumer's, for each channel's entries.
        scale: What a norm behind it multiplies each output by.
    """

    gram: Float[Tensor, "unknowns unknowns"]
    means: Float[Tensor, " unknowns"]
    weight: Float[Tensor, "channels each outputs"]
    scale: Float[Tensor, " outputs"]

    @property
    def variance(self) -> float:
        """Of what the consumer makes, behind its norm, all outputs together."""
        flat = (self.weight * self.scale).flatten(0, 1)
        return float(((self.gram @ flat) * flat).sum())


class Selection:
    """Channels come to one reading, each with the best weights of all that have come.

    The loss is ``tr (W - W0)^T H (W - W0)`` with ``H = A + r I``, rows of channels that have not come being 0. Its
    minimum is ``tr W0^T H W0 - tr B_S^T H_SS^-1 B_S`` with ``B = H W0``, for the rows S of those that have. With one
    channel more it falls by ``tr b_c^T (D_c)^-1 b_c``, where b and D are what the factor so far leaves of B and of H's
    blocks.

    Args:
        reading: What is read.
        ridge: r, in means of A's diagonal.
    """

    def __init__(self, reading: Reading, ridge: float = RIDGE) -> None:
        self.shape, self.system = reading.weight.shape, _system(reading, ridge)
        channels, each, _ = self.shape
        self.factor, self.come = torch.zeros_like(self.system), 0
        self.left = self.system @ (reading.weight * reading.scale).flatten(0, 1)
        self.blocks = self.system.reshape(channels, each, channels, each)[range(channels), :, range(channels)].clone()
        self.share = 1 / max(reading.variance, torch.finfo(self.system.dtype).tiny)

    def gains(self) -> Float[Tensor, " channels"]:
        """What each channel would take away, as a share of the variance of what the consumer makes."""
        rows = self.left.reshape(self.shape)
        gains: Tensor = (rows * torch.linalg.solve(self.blocks, rows)).sum((1, 2)) * self.share
        return gains

    def add(self, channel: int) -> None:
        """Let a channel come."""
        channels, each, _ = self.shape
        own = slice(channel * each, (channel + 1) * each)
        factor = self.factor[:, : self.come]
        columns = self.system[:, own] - factor @ factor[own].T
        root = torch.linalg.cholesky(columns[own])
        new = torch.linalg.solve_triangular(root, columns.T, upper=False).T
        self.left = self.left - new @ torch.linalg.solve_triangular(root, self.left[own], upper=False)
        by_channel = new.reshape(channels, each, each)
        self.blocks = self.blocks - by_channel @ by_channel.transpose(1, 2)
        self.blocks[channel] = torch.eye(each, dtype=new.dtype, device=new.device)  # nothing is left to be won
        self.factor[:, self.come : self.come + each] = new
        self.come += each


def order_of(readings: Sequence[Reading], ridge: float = RIDGE) -> tuple[int, ...]:
    """The channels of a group, those first that are worth most: of any width, the first ones stay.

    What each consumer loses counts as a share of the variance of what it makes.

    Args:
        readings: Of all consumers of the group.
        ridge: As in ``Selection``.
    """
    runs = [Selection(reading, ridge) for reading in readings]
    order: list[int] = []
    while len(order) < runs[0].shape[0]:
        gains = torch.stack([run.gains() for run in runs]).sum(0)
        gains[order] = -inf
        order.append(int(gains.argmax()))
        for run in runs:
            run.add(order[-1])
    return tuple(order)


def corrected(
    reading: Reading, kept: Sequence[int], ridge: float = RIDGE
) -> tuple[Float[Tensor, "channels each outputs"], Float[Tensor, " outputs"]]:
    """The weights with which a consumer best makes of some channels what it made of all, and what its bias needs.

    Args:
        reading: What it reads.
        kept: Channels that stay; the weights for others are 0.
        ridge: How strongly weights are drawn to those that they were, in means of A's diagonal.
    """
    system, before = _system(reading, ridge), reading.weight.flatten(0, 1)
    rows = entries_of(kept, len(reading.weight), len(system))
    weight = torch.zeros_like(before)
    weight[rows] = torch.cholesky_solve(system[rows] @ before, torch.linalg.cholesky(system[rows][:, rows]))
    return weight.reshape(reading.weight.shape), reading.means @ (before - weight)


def _system(reading: Reading, ridge: float) -> Float[Tensor, "unknowns unknowns"]:
    """``A + r I``, in memory of its own."""
    system = reading.gram.clone()
    weight = ridge * system.diagonal().mean()
    system.diagonal().add_(weight.clamp_min(torch.finfo(system.dtype).tiny))
    return system
