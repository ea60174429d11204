"""The method ``layer-only``: drop convolutions, merge nothing."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.methods.base import ChoiceTraits, Method
from trt_layermerge.planning.methods.layermerge import exponential_gain


@dataclass(frozen=True)
class LayerOnly(Method):
    """LayerOnly (the layer-pruning baseline of arXiv 2406.12837): removes convolutions, merges nothing.

        M[l, t] = max( M[l - 1, t - T[l]] + I[l],  M[l - 1, t - T0[l]] + I0[l] where layer l can be dropped )

    with T, I of the layer as it is, and T0, I0 of what is left of it when its convolution is gone and its activation
    stays: a knapsack with one yes or no for each layer. That only convolutions are removed is the paper's; the
    recurrence is ours, and so is the exponential scale, taken over from the method that it is compared with.
    """

    name = "layer-only"
    fits = False
    adds_activations = False

    def admits(self, choice: ChoiceTraits) -> bool:
        """Single layers, as they are or dropped."""
        return choice.kind == "keep" or (choice.kind == "identity" and choice.reducible and choice.layers == 1)

    def value(self, candidate: Candidate) -> float:
        """The exponential of the change in performance."""
        return exponential_gain(candidate)
