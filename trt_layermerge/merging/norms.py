"""Batch norms behind a change: the statistics that they normalise by are no longer those of what reaches them.

Re-estimated from a few hundred images, without labels, they take back most of what a change costs before training,
and what is left ranks changes much as training does (Li et al., EagleEye, arXiv 2007.02491).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

TOGETHER, NUMBERS = 16, 1 << 24
"""Batches are joined up to so many samples, or to so many numbers in all, which bounds the memory that it takes."""


def estimate_norms(
    module: nn.Module, batches: Iterable[Sequence[Tensor]], among: Iterable[nn.Module] | None = None
) -> None:
    """Set the running statistics of batch norms to those of what reaches them, in one pass over some data.

    Each batch is normalised by its own statistics, as in training, so that no norm has to wait for those before it.
    Everything else computes as in evaluation. Small batches are joined, for the statistics of a few samples are not
    those of all. One sample alone, which may have no variance, is passed over; without any other the statistics stay as
    they are.

    Args:
        module: In evaluation mode, and left in it.
        batches: The module's inputs, ``[batch, ...]`` each.
        among: Of these parts of the module, the norms; of all of them if not given.
    """
    parts = module.modules() if among is None else among
    norms = [part for part in parts if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None]
    if not norms:
        return
    momenta, seen = [norm.momentum for norm in norms], 0
    try:
        for inputs in _joined(batches):
            count = _samples(inputs)
            if count < 2:
                continue
            seen += count
            for norm in norms:
                norm.train()
                norm.momentum = count / seen  # the mean over all samples so far, of which the old ones are none
            with torch.inference_mode():
                module(*inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _joined(batches: Iterable[Sequence[Tensor]]) -> Iterator[tuple[Tensor, ...]]:
    """The batches, small ones together with those that follow."""
    waiting: list[Sequence[Tensor]] = []
    for batch in batches:
        waiting.append(batch)
        samples, numbers = (sum(map(size, waiting)) for size in (_samples, _numbers))
        if samples >= TOGETHER or numbers >= NUMBERS:
            yield _one(waiting)
            waiting = []
    if waiting:
        yield _one(waiting)


def _samples(batch: Sequence[Tensor]) -> int:
    return len(batch[0])


def _numbers(batch: Sequence[Tensor]) -> int:
    return sum(inputs.numel() for inputs in batch)


def _one(batches: Sequence[Sequence[Tensor]]) -> tuple[Tensor, ...]:
    return tuple(batches[0]) if len(batches) == 1 else tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
