"""Both forms of ridge regression find the one minimum, whichever has fewer equations."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.merging import ridge
from trt_layermerge.merging.ridge import Dual, Primal, factored, solve_factored


@settings(max_examples=30)
@given(
    groups=st.integers(1, 3),
    samples=st.integers(2, 12),
    unknowns=st.integers(1, 12),
    strength=st.sampled_from([1e-6, 1e-2, 1.0]),
    seed=st.integers(0, 99),
)
def test_dual_and_primal_agree(groups, samples, unknowns, strength, seed):
    """Also: the sum of squares and penalty has no gradient there, and neither changes what it is given."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.5

    patches, targets, prior = (
        noise(groups, samples, unknowns),
        noise(groups, samples, 2),
        noise(groups, unknowns + 1, 2),
    )
    kept = patches.clone()
    whole = torch.cat([patches, torch.ones(groups, samples, 1, dtype=torch.float64)], 2)
    with mock.patch.object(ridge, "COLUMNS_AT_ONCE", 5):
        dual = Dual(patches)
        second = dual.solve(dual.missed(targets, prior), prior, strength)
        assert dual.residual(second, targets, prior, strength) < 1e-6
        torch.testing.assert_close(dual.predict(second), whole @ second)
    primal, cross = Primal(whole.transpose(1, 2) @ whole, strength), whole.transpose(1, 2) @ targets
    first = primal.solve(cross, prior)
    assert primal.residual(first, cross, prior) < 1e-8
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)
    penalty = strength * patches.square().sum(1).mean(1)[:, None, None] * (first - prior)
    penalty[:, -1] = 0  # nothing draws the bias
    gradient = whole.transpose(1, 2) @ (targets - whole @ first) - penalty
    assert gradient.abs().max() < 1e-6 * (1 + cross.abs().max())
    assert torch.equal(patches, kept)


@given(groups=st.integers(1, 3), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_system_is_factored_where_it_lies(groups, size, seed):
    """Large ones would not fit in memory twice; the factor is LAPACK's to the last bit."""
    rows = torch.randn(groups, 2 * size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    system = rows.mT @ rows
    system = (system + system.mT) / 2
    expected, place = torch.linalg.cholesky(system), system.data_ptr()
    factor, sound = factored(system)
    assert sound and factor.data_ptr() == place and torch.equal(factor, expected)
    assert not factored(-torch.eye(size, dtype=torch.float64)[None])[1]


@given(groups=st.integers(1, 3), size=st.integers(1, 9), outputs=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_factor_is_not_copied_to_solve_with_it(groups, size, outputs, seed):
    """It may be the largest thing there is; what comes out is LAPACK's, in memory of the right side."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(groups, 2 * size, size, generator=generator, dtype=torch.float64)
    factor, sound = factored(rows.mT @ rows)
    right = torch.randn(groups, outputs, size, generator=generator, dtype=torch.float64).mT
    expected, kept = torch.cholesky_solve(right, factor), factor.clone()
    with mock.patch.object(torch, "cholesky_solve", side_effect=AssertionError("it copies the factor")):
        found = solve_factored(factor, right)
    assert sound and torch.equal(factor, kept)
    # Not to the last bit: a library may take the products of the two in different order.
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert found.data_ptr() == right.data_ptr()


def test_patches_of_zeros_leave_the_prior_and_fit_the_mean():
    targets = torch.arange(6.0, dtype=torch.float64).reshape(1, 6, 1)
    prior = torch.ones(1, 4, 1, dtype=torch.float64)
    dual = Dual(torch.zeros(1, 6, 3, dtype=torch.float64))
    missed = dual.missed(targets, prior)
    solution = dual.solve(missed, prior, dual.best_ridge(missed))
    assert solution.flatten().tolist() == [1.0, 1.0, 1.0, 2.5]


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_a_shift_of_the_data_moves_the_bias_alone(form):
    """What leaving the bias unpenalised means, at a ridge that does not grow with the shift."""
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(1, 40, 3, generator=generator, dtype=torch.float64)
    targets, prior = patches[..., :1] * 2, torch.zeros(1, 4, 1, dtype=torch.float64)

    def weights(x):
        ones = torch.cat([x, torch.ones_like(x[..., :1])], 2)
        small = 1e-3 / float(x.square().sum(1).mean())
        if form == "dual":
            return Dual(x).solve(targets, prior, small)[:, :-1]  # of a prior that makes nothing
        return Primal(ones.transpose(1, 2) @ ones, small).solve(ones.transpose(1, 2) @ targets, prior)[:, :-1]

    torch.testing.assert_close(weights(patches), weights(patches + 7.0))


@settings(max_examples=20)
@given(groups=st.integers(1, 2), samples=st.integers(5, 14), unknowns=st.integers(1, 12), seed=st.integers(0, 99))
def test_the_best_ridge_is_that_of_patches_not_solved_on(groups, samples, unknowns, seed):
    """What is found from products alone is what solving on the first patches and looking at the last ones finds."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(groups, samples, unknowns, generator=generator, dtype=torch.float64) + 0.5
    prior = torch.randn(groups, unknowns + 1, 2, generator=generator, dtype=torch.float64)
    truth = prior + 0.3 * torch.randn(prior.shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(groups, samples, 2, generator=generator, dtype=torch.float64)
    targets = Dual(patches).predict(truth) + noise
    first, last = slice(0, samples - samples // ridge.VALIDATED), slice(samples - samples // ridge.VALIDATED, None)
    part = Dual(patches[:, first])

    def missed(strength):
        # ridges are told in mean squares of all patches
        same = strength * float(first.stop / samples) * (Dual(patches).scale / part.scale)
        answers = []
        for g in range(groups):
            one, drawn_to = Dual(patches[g : g + 1, first]), prior[g : g + 1]
            solution = one.solve(one.missed(targets[g : g + 1, first], drawn_to), drawn_to, float(same[g]))
            answers.append(Dual(patches[g : g + 1, last]).predict(solution))
        return float((torch.cat(answers) - targets[:, last]).square().sum())

    losses = {strength: missed(strength) for strength in ridge.WIDE_RIDGES}
    chosen = Dual(patches).best_ridge(Dual(patches).missed(targets, prior))
    assert losses[chosen] <= min(losses.values()) * (1 + 1e-6)


def test_with_too_few_patches_to_evaluate_on_the_prior_stays():
    assert Dual(torch.randn(1, 3, 8)).best_ridge(torch.randn(1, 3, 2).double()) == max(ridge.WIDE_RIDGES)
