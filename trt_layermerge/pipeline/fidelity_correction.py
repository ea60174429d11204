"""Errors of predicted latencies, and corrections of what is systematic in them.

A prediction is the original's latency less what the blocks of a plan save by the profile. In an engine a block may save
less: a neighbour takes in what it added, its tensors stay in the cache. Each operation that goes takes its launch with
it, which the sum may count once too often. And weights that stay in the cache while a block is timed alone have left it
when the network comes round to them again. All of it is linear in the plan, so that a corrected plan is still a sum:

    measured = predicted + a * saved + b * removed + c * weights

with all of them as shares of the original's. What is fitted is judged on plans that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CorrectionKind = Literal["none", "saved", "weights", "saved and launches", "saved and weights"]

_TERMS: dict[CorrectionKind, tuple[str, ...]] = {
    "none": (),
    "saved": ("saved",),
    "weights": ("weights",),
    "saved and launches": ("saved", "removed"),
    "saved and weights": ("saved", "weights"),
}
_FEWEST = 6
"""Plans that a correction is fitted to; of fewer, chance is most of what is seen."""

_NOTHING = 1e-9
"""An error that no correction improves: what is left then is rounding."""

_WINS = 0.9
"""A term is taken where it leaves at most so much of the error of plans that the fit has not seen."""

_MOST = 10.0
"""Times the original; what is fitted lies far below."""


@dataclass(frozen=True)
class PlanTiming:
    """A plan, as it was predicted and as its engine was timed.

    Attributes:
        predicted: Latency over that of the original.
        measured: The same of the engines, timed interleaved.
        measured_ns: Median of its engine.
        removed: Share of the original's operations that it does without.
        doubt: How far, as a share, the two are from sure: half of what their intervals and the baseline's span.
        weights: Share of the original's weights that it does without; negative where it has more.
    """

    predicted: float
    measured: float
    measured_ns: int
    removed: float
    doubt: float = 0.0
    weights: float = 0.0

    @property
    def saved(self) -> float:
        """Share of the original's latency that it should do without."""
        return 1 - self.predicted

    @property
    def error(self) -> float:
        """Predicted over measured, less 1."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class FidelityErrors:
    """Errors of several plans.

    Attributes:
        median: Of their sizes.
        worst: The largest one.
        rmspe: Root of the mean of their squares.
        bias: Their mean, with its sign.
    """

    median: float
    worst: float
    rmspe: float
    bias: float

    @classmethod
    def of(cls, errors: Sequence[float] | Floats) -> FidelityErrors:
        """Of relative errors, of which there is one at least."""
        found = np.asarray(errors, np.float64)
        sizes = np.abs(found)
        rmspe = float(np.sqrt(np.mean(found**2)))
        return cls(float(np.median(sizes)), float(sizes.max()), rmspe, float(found.mean()))


@dataclass(frozen=True)
class Correction:
    """What is systematic in errors.

    Attributes:
        kind: Which terms it has; ``none`` where none helped.
        saved: Part of what blocks save that their engine does not.
        removed: What the share of operations that are gone costs, or saves if negative, as a share of the original.
        weights: The same of weights that are gone.
        unseen: Errors with it, each of a plan that the fit had not seen.
    """

    kind: CorrectionKind
    saved: float
    removed: float
    weights: float
    unseen: FidelityErrors

    @property
    def possible(self) -> bool:
        """It is of a known kind, and corrects by no more than there is."""
        largest = max(abs(self.saved), abs(self.removed), abs(self.weights))
        return self.kind in _TERMS and self.saved < 1 and largest < _MOST

    def corrected(self, plan: PlanTiming) -> float:
        """Its latency over that of the original."""
        return plan.predicted + self.saved * plan.saved + self.removed * plan.removed + self.weights * plan.weights


def find_correction(plans: Sequence[PlanTiming]) -> Correction:
    """The correction that wins by enough on unseen plans, of the fewest terms; each plan is left out once."""
    best, error = _fitted(plans, "none")
    if len(plans) < _FEWEST:
        return best
    for terms in (1, 2):  # each has to win against fewer
        tried = (_fitted(plans, kind) for kind, names in _TERMS.items() if len(names) == terms)
        found, left = min(tried, key=lambda one: one[1])
        if left <= _WINS * error and error > _NOTHING and found.possible:
            best, error = found, left
    return best


def _fitted(plans: Sequence[PlanTiming], kind: CorrectionKind) -> tuple[Correction, float]:
    """A correction, and what it leaves: the root of the mean square of unseen errors, as a share of the original.

    Of relative errors those of the fastest plans, where next to nothing is left, would decide alone.
    """
    names = _TERMS[kind]
    features = np.array([[getattr(plan, name) for name in names] for plan in plans], np.float64)
    predicted, measured = (np.array([getattr(plan, name) for plan in plans]) for name in ("predicted", "measured"))
    missed = predicted - measured
    for left_out in range(len(plans) if names else 0):
        others = np.arange(len(plans)) != left_out
        missed[left_out] += features[left_out] @ _solved(features[others], (measured - predicted)[others])
    solved = _solved(features, measured - predicted) if names else ()
    weights = {"saved": 0.0, "removed": 0.0, "weights": 0.0} | dict(zip(names, map(float, solved), strict=True))
    errors = FidelityErrors.of(missed / measured)
    return Correction(kind, **weights, unseen=errors), float(np.sqrt(np.mean(missed**2)))


def _solved(features: Floats, wanted: Floats) -> Floats:
    """Least squares."""
    solved: Floats = np.asarray(np.linalg.lstsq(features, wanted)[0], np.float64)
    return solved


def rank_correlation(plans: Sequence[PlanTiming]) -> float | None:
    """Spearman's, of predicted and measured latencies; ``None`` where one of them is always the same."""
    predicted, measured = (_ranks([getattr(plan, name) for plan in plans]) for name in ("predicted", "measured"))
    if len(plans) < 2 or not (predicted.std() and measured.std()):
        return None
    return float(np.corrcoef(predicted, measured)[0, 1])


def _ranks(values: Sequence[float]) -> Floats:
    """Ranks from 0; equal values share the mean of theirs."""
    found = np.asarray(values)
    below, upto = (np.searchsorted(np.sort(found), found, side) for side in ("left", "right"))
    middle: Floats = (below + upto - 1) / 2
    return middle
