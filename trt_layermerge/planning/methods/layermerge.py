"""The method ``layermerge``: keep, merge or drop, as LayerMerge does."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.methods.base import ChoiceTraits, Method


def exponential_gain(candidate: Candidate) -> float:
    """exp(performance after - before), performance being minus the loss (arXiv 2406.12837, section 4.1)."""
    try:
        return math.exp(candidate.gain)
    except OverflowError:
        return math.inf  # which the problem refuses, naming the item


@dataclass(frozen=True)
class LayerMerge(Method):
    """LayerMerge (Kim et al., ICML 2024, arXiv 2406.12837, section 4): keep, merge or drop.

        M[l, t] = max over blocks (k, l] and merged kernels c with T[k, l, c] <= t of M[k, t - T[k, l, c]] + I[k, l, c]

    with M[0, t] = 0 and I the exponential of the change in performance. The kernel c stands for which convolutions of
    the block are kept. The paper rounds T down to bins; ``reference.discretised`` has its bins, but rounds up.
    """

    name = "layermerge"
    fits = False
    adds_activations = True

    def admits(self, choice: ChoiceTraits) -> bool:
        """What the paper has: no fits, and no block dropped of which a single layer could not be."""
        return choice.kind in {"keep", "merge"} or (choice.kind == "identity" and choice.reducible)

    def value(self, candidate: Candidate) -> float:
        """The exponential of the change in performance."""
        return exponential_gain(candidate)
