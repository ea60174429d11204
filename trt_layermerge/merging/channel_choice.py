"""Which channels of a group stay: those from which its consumers can best make what they made of all of them.

A consumer is linear in what it reads, so what it loses with some channels, once its other weights are solved again, is
known in closed form from the Gram matrix of its patches. Channels leave one by one, each time the one that costs least
then, which gives one order for all widths; removing one and correcting the rest is the step of Optimal Brain Surgeon
(Hassibi and Stork, NIPS 1992) for a block of weights. He, Zhang and Sun (arXiv 1707.06168) choose by the same loss with
a lasso, LinDeps (arXiv 2507.21573) by a pivoted factorisation of what consumers read, without their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from trt_layermerge.merging.ridge import RIDGE

LEAVE_TOGETHER = 64
"""Of so many channels that are left, one leaves at a time; of more, as many more."""


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


class Elimination:
    """Channels leave one reading, each with the best correction of the weights that stay.

    The loss is ``tr (W - W0)^T H (W - W0)`` with ``H = A + r I``, rows of channels that have left being 0. Without the
    rows of some channels its minimum rises by ``tr W_c^T (P_cc)^-1 W_c``, where ``P = H^-1`` among those that are left.

    Args:
        reading: What is read.
        ridge: r, in means of A's diagonal.
    """

    def __init__(self, reading: Reading, ridge: float = RIDGE) -> None:
        self.channels, self.each, self.outputs = reading.weight.shape
        system = reading.gram.clone()
        weight = ridge * system.diagonal().mean()
        system.diagonal().add_(weight.clamp_min(torch.finfo(system.dtype).tiny))
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
        self.weight, self.scale = reading.weight.clone(), reading.scale
        self.left = torch.arange(self.channels, device=system.device)

    def costs(self) -> Float[Tensor, " left"]:
        """What each channel that is left would cost, behind the norm."""
        count = len(self.left)
        blocks = self.inverse.reshape(count, self.each, count, self.each)
        own = blocks[torch.arange(count), :, torch.arange(count)]
        costs: Tensor = (self.weight * torch.linalg.solve(own, self.weight)).sum(1) @ self.scale.square()
        return costs

    def remove(self, places: Tensor) -> None:
        """Let channels leave, by their places among those that are left."""
        count = len(self.left)
        stay = torch.ones(count, dtype=torch.bool, device=self.left.device)
        stay[places] = False
        gone, rest = ((~stay).repeat_interleave(self.each), stay.repeat_interleave(self.each))
        flat = self.weight.flatten(0, 1)
        factor = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone][:, rest])
        self.weight = (flat[rest] - factor.T @ flat[gone]).reshape(-1, self.each, self.outputs)
        self.inverse = self.inverse[rest][:, rest] - self.inverse[rest][:, gone] @ factor
        self.left = self.left[stay]


def order_of(readings: Sequence[Reading], ridge: float = RIDGE) -> tuple[int, ...]:
    """The channels of a group, those first that are worth most: of any width, the first ones stay.

    What each consumer loses counts as a share of the variance of what it makes.

    Args:
        readings: Of all consumers of the group.
        ridge: As in ``Elimination``.
    """
    runs = [Elimination(reading, ridge) for reading in readings]
    shares = [1 / max(reading.variance, torch.finfo(torch.float64).tiny) for reading in readings]
    gone: list[int] = []
    left = list(range(runs[0].channels))
    while len(left) > 1:
        costs = sum((share * run.costs() for share, run in zip(shares, runs, strict=True)), torch.zeros(()))
        count = max(1, len(left) // LEAVE_TOGETHER)
        leaving = costs.topk(count, largest=False).indices
        gone += [left[int(place)] for place in leaving]
        left = [channel for channel in left if channel not in gone[-count:]]
        for run in runs:
            run.remove(leaving)
    return (*left, *reversed(gone))


def corrected(
    reading: Reading, kept: Sequence[int], ridge: float = RIDGE
) -> tuple[Float[Tensor, "channels each outputs"], Float[Tensor, " outputs"]]:
    """The weights with which a consumer best makes of some channels what it made of all, and what its bias needs.

    Args:
        reading: What it reads.
        kept: Channels that stay; the weights for others are 0.
        ridge: How strongly weights are drawn to those that they were, in means of A's diagonal.
    """
    run, stay = Elimination(reading, ridge), set(kept)
    gone = [channel for channel in range(run.channels) if channel not in stay]
    run.remove(torch.tensor(gone, dtype=torch.long, device=run.left.device))
    weight = torch.zeros_like(reading.weight)
    weight[run.left] = run.weight
    return weight, reading.means @ (reading.weight - weight).flatten(0, 1)
