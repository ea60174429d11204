"""The method ``joint``: ours."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.planning.methods.base import ChoiceTraits
from trt_layermerge.planning.methods.narrowing_method import NarrowingMethod


@dataclass(frozen=True)
class Joint(NarrowingMethod):
    """Every choice there is, at every width, valued by the change of the loss; such changes add up, to first order.

        M[l, t] = max over blocks (k, l] and their choices c with T[k, l, c] <= t of M[k, t - T[k, l, c]] + I[k, l, c]

    with M[0, t] = 0 and I = loss before - loss after. Where channel groups may be narrowed, M, T and I depend on their
    widths, too, and the width that a block names first adds its own I. It is solved for all t at once, by ``frontier``.
    """

    name = "joint"
    fits = True
    adds_activations = True

    def admits(self, choice: ChoiceTraits) -> bool:
        """Every choice."""
        return True
