"""Merges that a fit is at least as good as, at the same price. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.network.network import Network


def without_copies(network: Network, choices: Iterable[Choice]) -> tuple[Choice, ...]:
    """The choices, but of a merge and a fit of the same convolution the fit alone.

    The product of the weights is one of the points that the fit is the best of. Nor is the fit slower, but where all
    layers of the block have a group norm in front or add a shift, and what the merge keeps has neither: such as the
    shortcut of a U-Net's block, all else dropped.
    """
    given = tuple(choices)
    fits = {(choice.place, choice.geometry): choice for choice in given if choice.kind is Kind.FIT}

    def copies(choice: Choice) -> bool:
        fit = fits.get((choice.place, choice.geometry)) if choice.kind is Kind.MERGE else None
        return fit is not None and not _spares(network, choice, fit)

    return tuple(choice for choice in given if not copies(choice))


def _spares(network: Network, merge: Choice, fit: Choice) -> bool:
    """Whether a merge has nothing in front of its convolution, and nothing added to it, of which the fit has some."""
    ours, theirs = lowered_in(network, merge), lowered_in(network, fit)
    return not (ours.pre_norm or ours.shifts) and bool(theirs.pre_norm or theirs.shifts)
