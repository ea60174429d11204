"""The method ``joint``: ours."""

from __future__ import annotations

from dataclasses import dataclass

from trt_layermerge.planning.methods.base import ChoiceTraits, Method


@dataclass(frozen=True)
class Joint(Method):
    """Every choice there is, valued by the change of the loss; changes of the loss add up, to first order.

        M[l, t] = max over blocks (k, l] and their choices c with T[k, l, c] <= t of M[k, t - T[k, l, c]] + I[k, l, c]

    with M[0, t] = 0 and I = loss before - loss after. It is solved for all t at once, by ``frontier``.
    """

    name = "joint"
    fits = True
    adds_activations = True

    def admits(self, choice: ChoiceTraits) -> bool:
        """Every choice."""
        return True
