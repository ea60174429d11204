from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from tests.estimation.cards import square, variety
from trt_layermerge.errors import InputError
from trt_layermerge.estimation.card import Constants
from trt_layermerge.estimation.constants_fit import (
    FITTED,
    LEAST_ROWS,
    Measured,
    coverage,
    cross_validate,
    errors_on,
    fit,
    recalibrate,
)
from trt_layermerge.estimation.device_files import MEASURED, read_card
from trt_layermerge.estimation.latency_model import LatencyModel

CARD = read_card(MEASURED)
START = replace(CARD.constants, read=0.8, write=0.8, gemm=1.0, winograd=0.6, fft=0.6, torch_call_ms=0.2)


def _measured(constants: Constants, noise: float = 0.0, sheet=CARD.sheet) -> Measured:
    """Rows of a card with these constants."""
    rows = tuple(variety())
    empty = Measured(rows, np.ones(len(rows)), "tensorrt-8.4", "torch-call")
    latency = errors_on(sheet, constants, empty).estimated_ms
    return replace(empty, latency_ms=latency * np.exp(noise * np.random.default_rng(0).standard_normal(len(rows))))


def test_fits_find_the_constants_that_made_the_rows() -> None:
    found = fit(CARD.sheet, START, _measured(CARD.constants))
    for one in fields(Constants):
        expected = getattr(CARD.constants, one.name)
        assert getattr(found, one.name) == pytest.approx(expected, rel=0.02), one.name


def test_a_few_wild_rows_do_not_draw_a_fit_away() -> None:
    measured = _measured(CARD.constants)
    wild = measured.latency_ms.copy()
    wild[np.random.default_rng(1).random(len(wild)) < 0.1] *= 3
    found = fit(CARD.sheet, START, replace(measured, latency_ms=wild))
    for name in FITTED:
        assert getattr(found, name) == pytest.approx(getattr(CARD.constants, name), rel=0.1), name


def test_what_a_library_does_not_have_is_not_fitted() -> None:
    found = fit(CARD.sheet, START, replace(_measured(CARD.constants), library="tensorrt-10"))
    assert found.fft == pytest.approx(START.fft)


def test_rows_of_one_shape_are_in_one_fold() -> None:
    """Twice the rows are the same folds and the same fits; were folds of rows, each would have seen its copy."""
    once = _measured(CARD.constants, noise=0.2)
    twice = replace(once, workloads=once.workloads * 2, latency_ms=np.tile(once.latency_ms, 2))
    single, double = (cross_validate(CARD.sheet, START, one).log_error for one in (once, twice))
    np.testing.assert_allclose(double, np.tile(single, 2), atol=1e-3)


def test_intervals_hold_most_of_the_rows_they_are_from() -> None:
    measured = _measured(CARD.constants, noise=0.1)
    found = cross_validate(CARD.sheet, START, measured)
    spreads = found.spreads()
    assert {name for name in found.algorithm if found.algorithm.count(name) >= 8} == set(spreads)
    for name, spread in spreads.items():
        errors = found.log_error[np.array([one == name for one in found.algorithm])]
        assert np.mean((spread.low <= errors) & (errors <= spread.high)) >= 0.85
        assert spread.low <= 0 <= spread.high and spread.rows == len(errors)


def test_coverage_is_what_there_was() -> None:
    rows = [square(16, 32, 3, 28), square(64, 8, 5, 14, batch=64)]
    found = coverage(rows, ["implicit-gemm", "implicit-gemm"])["implicit-gemm"]
    assert found.kernel == (3, 5) and found.batch == (64, 128) and found.channels == (8, 64)
    assert found.pixels == (196, 784)


def test_a_card_is_pulled_to_rows_that_say_something_else() -> None:
    """A T4 that the data sheet is wrong about; 90 rows of it make most of the error go."""
    card = read_card("t4")
    truth = replace(card.constants, gemm=0.7 * card.constants.gemm, write=0.8 * card.constants.write, winograd=0.4)
    found = recalibrate(card, _measured(truth, noise=0.03, sheet=card.sheet), "rows")
    assert found.taken and found.after < 0.5 * found.before
    assert found.card.constants.gemm == pytest.approx(truth.gemm, rel=0.1)
    assert found.card.constants_of == "t4" and "rows" in found.card.provenance
    (before,), (after,) = (
        LatencyModel(one, "tensorrt-8.4", "torch-call").convolutions([square(64, 96, 1, 28)])
        for one in (card, found.card)
    )
    assert (before.calibrated, after.calibrated) == ("transferred", "calibrated")
    assert after.high_ns / after.low_ns < before.high_ns / before.low_ns


def test_rows_that_the_card_knows_already_change_nothing() -> None:
    found = recalibrate(CARD, _measured(CARD.constants), "rows")
    assert not found.taken and found.card is CARD


def test_too_few_rows_are_refused() -> None:
    measured = _measured(CARD.constants)
    few = measured.rows(np.arange(len(measured.workloads)) < LEAST_ROWS - 1)
    with pytest.raises(InputError, match=f"needs {LEAST_ROWS} rows"):
        recalibrate(CARD, few, "rows")
