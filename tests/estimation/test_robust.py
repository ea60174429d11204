from __future__ import annotations

import numpy as np

from trt_layermerge.estimation.robust import least_squares, soft_l1

X = np.linspace(0, 1, 40)


def test_it_finds_what_made_the_rows() -> None:
    def residuals(p: np.ndarray) -> np.ndarray:
        return np.exp(p[0] * X) + p[1] - (np.exp(0.7 * X) - 2.0)

    np.testing.assert_allclose(least_squares(residuals, np.zeros(2), 0.1), [0.7, -2.0], atol=1e-4)


def test_outliers_do_not_draw_it_away() -> None:
    target = 3 * X + 1
    target[::8] += 50

    def residuals(p: np.ndarray) -> np.ndarray:
        return p[0] * X + p[1] - target

    np.testing.assert_allclose(least_squares(residuals, np.zeros(2), 0.1), [3, 1], atol=0.1)


def test_a_parameter_that_no_row_depends_on_stays() -> None:
    found = least_squares(lambda p: p[0] * X - X, np.array([0.0, 5.0]), 0.1)
    np.testing.assert_allclose(found, [1, 5], atol=1e-6)


def test_a_pull_holds_it_back() -> None:
    free, pulled = (least_squares(lambda p: p[0] * X - X, np.zeros(1), 0.1, pull)[0] for pull in (0.0, 100.0))
    assert free > 0.99 and 0 < pulled < 0.2


def test_soft_l1_is_a_square_near_zero_and_a_line_far_from_it() -> None:
    np.testing.assert_allclose(soft_l1(np.array([1e-3]), 1.0), [1e-6], rtol=1e-4)
    far = soft_l1(np.array([100.0, 101.0]), 0.1)
    np.testing.assert_allclose(np.diff(far), [0.2], rtol=1e-3)
