"""Batch norms behind a change: the statistics that they normalise by are no longer those of what reaches them.

Estimated anew from a few hundred images, without labels, they take back most of what a change costs before training,
and what is left ranks changes much as training does (Li et al., EagleEye, arXiv 2007.02491).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def estimate_norms(
    module: nn.Module, batches: Iterable[Sequence[Tensor]], among: Iterable[nn.Module] | None = None
) -> None:
    """Set the running statistics of batch norms to those of what reaches them, in one pass over some data.

    Each batch is normalised by its own statistics, as in training, so that no norm has to wait for those before it.
    Everything else computes as in evaluation. A batch of one sample, which has no variance, is passed over; without
    any other the statistics stay as they are.

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
        for inputs in batches:
            count = len(inputs[0])
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
