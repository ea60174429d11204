"""Bounds of what was not measured: they hold what a smooth device does, and widen away from what is known."""

from __future__ import annotations

from itertools import product
from math import exp, log

import numpy as np
import pytest

from trt_layermerge.blocks.gap_signature import GapSignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.latency.profile import ProfileRow
from trt_layermerge.latency.row_bounds import FEWEST, MOST, RowBound, bound_rows
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.network.geometry import Geometry


def convolution(channels: int, size: int, kernel: int, groups: int = 1, out: int | None = None) -> Signature:
    pad = (kernel // 2,) * 4
    geometry = Geometry(channels, out or channels, (kernel, kernel), padding=pad, groups=groups)
    return Signature(1, (channels, size, size), geometry, activation="relu")


GRID = [
    convolution(channels, size, kernel)
    for channels, size, kernel in product((16, 32, 64, 128), (7, 14, 28, 56), (1, 3, 5, 7))
]


def device(one: Signature) -> float:
    """Latency in ns: a launch, work at a rate that depends on the kernel, traffic."""
    rate = {1: 0.02, 3: 0.008, 5: 0.012, 7: 0.011}[one.convolution.kernel[0] if one.convolution else 1]
    return 2000 + rate * one.macs + 0.1 * (np.prod(one.input_shape) + np.prod(one.output_shape))


def row(one: Signature, ns: float) -> ProfileRow:
    median = round(ns)
    return ProfileRow(one, Timing(median, median, median, median, median, 0.0, 30))


def split(seed: int, count: int) -> tuple[list[Signature], list[Signature]]:
    order = np.random.default_rng(seed).permutation(len(GRID))
    return [GRID[n] for n in order[:count]], [GRID[n] for n in order[count:]]


@pytest.mark.parametrize("noise", [0.0, 0.03])
@pytest.mark.parametrize("count", [FEWEST + 2, 16, 32])
def test_bounds_hold_nearly_all_of_what_was_not_measured(count: int, noise: float) -> None:
    held, widths = [], []
    for seed in range(8):
        random, (known, unknown) = np.random.default_rng(seed), split(seed, count)
        bounds = bound_rows([row(one, device(one) * exp(noise * random.standard_normal())) for one in known], unknown)
        held += [bounds[one.key].low_ns <= device(one) for one in unknown]
        widths += [log(bounds[one.key].likely_ns / max(bounds[one.key].low_ns, 1)) for one in unknown]
        assert all(bounds[one.key].low_ns <= bounds[one.key].likely_ns for one in unknown)
    assert np.mean(held) > 0.97 and np.median(widths) < log(3)


def test_what_is_unlike_all_that_is_known_is_less_sure() -> None:
    known = [row(one, device(one)) for one in GRID]
    near, far = convolution(48, 28, 3), convolution(2048, 3, 1, groups=2048)
    bounds = bound_rows(known, [near, far])
    width = {key: log(b.likely_ns / max(b.low_ns, 1)) for key, b in bounds.items()}
    assert width[near.key] < 0.5 * width[far.key]
    assert bounds[near.key].low_ns <= device(near) <= 2 * bounds[near.key].likely_ns


def test_too_few_rows_say_nothing_and_no_question_has_no_answer() -> None:
    known = [row(one, device(one)) for one in GRID[: FEWEST - 1]]
    assert bound_rows(known, GRID[-2:]) == {one.key: RowBound(0, 0) for one in GRID[-2:]}
    assert bound_rows(known, []) == {}


def test_rows_that_say_nothing_are_left_out() -> None:
    known, unknown = split(3, 24)
    plain = [row(one, device(one)) for one in known]
    gap = GapSignature(1, (8, 8, 8), (8, 4, 4), "0" * 16)
    timing = Timing(10**9, 10**9, 10**9, 10**9, 10**9, 0.0, 30)
    others = [ProfileRow(gap, timing), ProfileRow(unknown[0], None, "failed", "no"), row(convolution(4, 4, 1), 0)]
    assert bound_rows([*plain, *others], unknown) == bound_rows(plain, unknown)


def test_a_prior_that_is_right_but_for_a_factor_makes_bounds_narrow() -> None:
    known, unknown = split(4, FEWEST)
    rows = [row(one, 3 * device(one)) for one in known]
    bounds, without = bound_rows(rows, unknown, device), bound_rows(rows, unknown)
    for one in unknown:
        assert bounds[one.key].likely_ns == pytest.approx(3 * device(one), rel=0.1)
        assert bounds[one.key].low_ns >= 1.5 * device(one)
    assert sum(b.low_ns for b in bounds.values()) > sum(b.low_ns for b in without.values())


def test_what_the_prior_does_not_know_is_not_guessed() -> None:
    known, unknown = split(5, 24)
    strange = unknown[0]
    rows = [row(one, device(one)) for one in known]
    bounds = bound_rows(rows, unknown, lambda one: None if one in (strange, known[0]) else device(one))
    assert bounds[strange.key] == RowBound(0, 0) and all(bounds[one.key].low_ns > 0 for one in unknown[1:])


def test_large_profiles_are_thinned() -> None:
    many = [convolution(c, s, k) for c, s, k in product(range(8, 120, 4), range(4, 32, 4), (1, 3, 5, 7))]
    assert len(many) > MOST
    bounds = bound_rows([row(one, device(one)) for one in many], [convolution(50, 30, 3)])
    (bound,) = bounds.values()
    assert bound.low_ns <= device(convolution(50, 30, 3)) <= 1.2 * bound.likely_ns
