"""The method ``width``: narrow, and keep every layer."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.planning.methods.base import ChoiceTraits
from trt_layermerge.planning.methods.narrowing_method import NarrowingMethod


@dataclass(frozen=True)
class WidthOnly(NarrowingMethod):
    """Channel pruning against a table of latencies: which width each channel group has, exactly, for every budget.

        M[l, w, t] = max over w' of M[l - 1, w', t - T[l, w', w]] + I[w]

    with T[l, w', w] the latency of layer l that reads and writes these widths, and I[w] = loss before - loss after of
    the width that layer l names first; a group has one width wherever it occurs. What MDP (CVPR 2025, arXiv
    2504.02168) leaves to a mixed-integer program for one budget is here the frontier's path over layers and widths.
    """

    name = "width"
    fits = False
    adds_activations = False

    @property
    def narrows_unasked(self) -> bool:
        """It does nothing else."""
        return True

    def admits(self, choice: ChoiceTraits) -> bool:
        """Layers as they are."""
        return choice.kind == "keep"
