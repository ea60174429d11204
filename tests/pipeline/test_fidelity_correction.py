"""Errors of predictions: what is systematic is found, chance is left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_layermerge.pipeline.fidelity_correction import (
    Correction,
    FidelityErrors,
    PlanTiming,
    find_correction,
    rank_correlation,
)

SHARES = np.linspace(0.3, 0.95, 10)


def plans(saved: float = 0.0, removed: float = 0.0, noise: float = 0.0, seed: int = 0) -> list[PlanTiming]:
    """Plans whose engines save less than was predicted, and pay for each operation that is gone."""
    random = np.random.default_rng(seed)
    gone = (1 - SHARES) * random.uniform(0.2, 1.0, len(SHARES))
    measured = (SHARES + saved * (1 - SHARES) + removed * gone) * (1 + noise * random.standard_normal(len(SHARES)))
    return [PlanTiming(*map(float, row), 1000, float(g)) for *row, g in zip(SHARES, measured, gone, strict=True)]


@given(st.floats(0.02, 0.3), st.integers(0, 100))
def test_what_blocks_do_not_save_is_found(saved: float, seed: int) -> None:
    found = find_correction(plans(saved, seed=seed))
    assert found.kind == "saved" and found.saved == pytest.approx(saved, abs=1e-6)
    assert found.unseen.rmspe < 1e-6 < FidelityErrors.of([plan.error for plan in plans(saved, seed=seed)]).rmspe


@given(st.floats(-0.3, -0.05), st.integers(0, 100))
def test_so_are_launches_that_were_counted_twice(removed: float, seed: int) -> None:
    found = find_correction(plans(0.1, removed, seed=seed))
    assert found.kind == "saved and launches"
    assert (found.saved, found.removed) == pytest.approx((0.1, removed), abs=1e-6)
    for plan in plans(0.1, removed, seed=seed):
        assert found.corrected(plan) == pytest.approx(plan.measured)


@given(st.floats(-0.3, -0.05), st.integers(0, 100))
def test_so_are_weights_that_do_not_stay_in_the_cache(cold: float, seed: int) -> None:
    """The fastest plans save what no row knew of, though what they save besides is as predicted."""
    gone = np.sort(np.random.default_rng(seed).uniform(0, 1, len(SHARES)))[::-1]
    timed = [
        PlanTiming(float(share), float(share + cold * one), 1000, 0.0, weights=float(one))
        for share, one in zip(SHARES + 0.3, gone, strict=True)
    ]
    found = find_correction(timed)
    assert found.kind == "weights" and found.weights == pytest.approx(cold, abs=1e-6)
    assert found.unseen.rmspe < 1e-6
    assert [found.corrected(plan) for plan in timed] == pytest.approx([plan.measured for plan in timed])


def test_chance_is_not_corrected() -> None:
    taken = [find_correction(plans(noise=0.02, seed=seed)).kind != "none" for seed in range(200)]
    assert np.mean(taken) < 0.2
    assert find_correction(plans(saved=0.2)[:5]).kind == "none", "too few to tell"


def test_errors_of_unseen_plans_are_those_of_a_fit_without_them() -> None:
    """One plan that is far off cannot correct itself."""
    odd = plans()
    odd[0] = replace(odd[0], measured=2.0)
    found = find_correction(odd)
    assert found.kind == "none" and found.unseen.worst == pytest.approx(abs(odd[0].error))


def test_errors_and_ranks() -> None:
    found = FidelityErrors.of([0.1, -0.3, 0.2])
    assert found == FidelityErrors(*(pytest.approx(one) for one in (0.2, 0.3, (0.14 / 3) ** 0.5, 0.0)))
    whole = plans()
    assert rank_correlation(whole) == pytest.approx(1.0)
    reverse = [replace(plan, measured=1 - plan.measured) for plan in whole]
    assert rank_correlation(reverse) == pytest.approx(-1.0)
    assert rank_correlation(whole[:1]) is None
    assert rank_correlation([replace(plan, measured=0.5) for plan in whole]) is None
    ties = [PlanTiming(p, m, 1, 0.0) for p, m in [(1, 1), (1, 2), (2, 3), (3, 3)]]
    assert rank_correlation(ties) == pytest.approx(np.corrcoef([0.5, 0.5, 2, 3], [0, 1, 2.5, 2.5])[0, 1])


def test_no_correction_changes_nothing() -> None:
    plain = Correction("none", 0.0, 0.0, 0.0, FidelityErrors(0, 0, 0, 0))
    assert [plain.corrected(plan) for plan in plans()] == list(SHARES)
