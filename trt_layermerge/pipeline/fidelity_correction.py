"""Errors of predicted latencies, and corrections of what is systematic in them.

A prediction is the original's latency less what the blocks of a plan save by the profile. In an engine a block may save
less: a neighbour takes in what it added, its tensors stay in the cache. And each operation that goes takes its launch
with it, which the sum may count once too often. Both are linear in the plan, so that a corrected plan is still a sum:

    measured = predicted + a * saved + b * removed

with all three as shares of the original. What is fitted is judged on plans that the fit has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CorrectionKind = Literal["none", "saved", "saved and launches"]

_TERMS: dict[CorrectionKind, int] = {"none": 0, "saved": 1, "saved and launches": 2}
_FEWEST = 6
"""Plans that a correction is fitted to; of fewer, chance is most of what is seen."""

_NOTHING = 1e-9
"""An error that no correction improves: what is left then is rounding."""

_WINS = 0.9
"""A correction is taken where it leaves at most so much of the error of plans that it has not seen."""


@dataclass(frozen=True)
class PlanTiming:
    """A plan, as it was predicted and as its engine was timed.

    Attributes:
        predicted: Latency over that of the original.
        measured: The same of the engines, timed interleaved.
        measured_ns: Median of its engine.
        removed: Share of the original's operations that it does without.
        doubt: How far, as a share, the two are from sure: half of what their intervals and the baseline's span.
    """

    predicted: float
    measured: float
    measured_ns: int
    removed: float
    doubt: float = 0.0

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
        unseen: Errors with it, each of a plan that the fit had not seen.
    """

    kind: CorrectionKind
    saved: float
    removed: float
    unseen: FidelityErrors

    def corrected(self, plan: PlanTiming) -> float:
        """Its latency over that of the original."""
        return plan.predicted + self.saved * (1 - plan.predicted) + self.removed * plan.removed


def find_correction(plans: Sequence[PlanTiming]) -> Correction:
    """The correction that wins by enough on unseen plans, of the fewest terms; each plan is left out once."""
    best = Correction("none", 0.0, 0.0, FidelityErrors.of([plan.error for plan in plans]))
    if len(plans) < _FEWEST:
        return best
    for kind in _TERMS:  # from the fewest terms to the most: each has to win against fewer
        tried = best if kind == "none" else _fitted(plans, kind)
        if tried.unseen.rmspe <= _WINS * best.unseen.rmspe and best.unseen.rmspe > _NOTHING:
            best = tried
    return best


def _fitted(plans: Sequence[PlanTiming], kind: CorrectionKind) -> Correction:
    terms = _TERMS[kind]
    features = np.array([[1 - plan.predicted, plan.removed] for plan in plans])[:, :terms]
    predicted, measured = (np.array([getattr(plan, name) for plan in plans]) for name in ("predicted", "measured"))
    errors = []
    for left_out in range(len(plans)):
        others = np.arange(len(plans)) != left_out
        weights = _solved(features[others], predicted[others], measured[others])
        errors.append((predicted[left_out] + features[left_out] @ weights) / measured[left_out] - 1)
    weights = np.append(_solved(features, predicted, measured), [0.0, 0.0])
    return Correction(kind, float(weights[0]), float(weights[1]), FidelityErrors.of(errors))


def _solved(features: Floats, predicted: Floats, measured: Floats) -> Floats:
    """Least squares of relative errors."""
    scale = 1 / measured
    solved: Floats = np.asarray(
        np.linalg.lstsq(features * scale[:, None], (measured - predicted) * scale)[0], np.float64
    )
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
