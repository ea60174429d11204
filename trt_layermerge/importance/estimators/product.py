"""Merges as products of weights and nothing else: what the papers' merges are worth before any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators.fit import Fit

if TYPE_CHECKING:
    from trt_layermerge.network.network import Network


@dataclass(frozen=True)
class Product(Fit):
    """As ``fit`` measures choices that need no fit."""

    name = "product"
    summary = "product of weights"
    measures_widths = False

    def require_measurable(self, network: Network, choices: Sequence[Choice]) -> None:
        """Refuse fits.

        Raises:
            UsageError: One of them is a fit.
        """
        fits = [choice for choice in choices if choice.kind is Kind.FIT]
        if fits:
            raise UsageError(
                f"the estimator product cannot measure {fits[0].key!r}: a fit is no product of weights",
                hint="plan with --method layermerge, or measure with --estimator fit",
            )
