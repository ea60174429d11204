"""Fitting behind an activation: never worse than fitting before it, and exact where that is possible."""

from __future__ import annotations

from math import inf
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_layermerge.merging import patches, ridge
from trt_layermerge.merging import responses as module
from trt_layermerge.merging.responses import CLIPPED, Responses, fit_responses, predicted
from trt_layermerge.network.geometry import Geometry

POINT = Geometry(3, 2, (1, 1))


def made(seed: int, samples: int = 400, hidden: float = 1.0) -> Responses:
    """Sums that no linear map makes, with something added beside the convolution."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(1, samples, 3, generator=generator)
    patches = torch.cat([rows, torch.ones(1, samples, 1)], 2)
    linear = rows @ torch.randn(1, 3, 2, generator=generator)
    added = 0.3 * torch.randn(1, samples, 2, generator=generator)
    odd = hidden * torch.randn(1, samples, 2, generator=generator).square()
    return Responses(patches, linear + added - odd * (linear + added < 0), added)


def missed(found, responses: Responses, clip: tuple[float, float]) -> float:
    weights = torch.cat([found.convolution.weight.flatten(1), found.convolution.bias[:, None]], 1).T[None]
    sums = predicted(responses.patches, weights) + responses.added
    return float((sums.clamp(*clip) - responses.wanted.double().clamp(*clip)).square().mean())


@settings(max_examples=20)
@given(seed=st.integers(0, 99), activation=st.sampled_from(sorted(CLIPPED)))
def test_behind_the_activation_it_is_no_worse(seed, activation):
    responses, clip = made(seed), CLIPPED[activation]
    plain = fit_responses(responses, POINT, choose_ridge=False)
    aware = fit_responses(responses, POINT, clip=clip, choose_ridge=False)
    assert missed(aware, responses, clip) <= missed(plain, responses, clip)
    assert aware.unexplained >= plain.unexplained - 1e-9, "before the activation the plain fit is the best"
    assert aware.residual < 1e-6


@settings(max_examples=20)
@given(seed=st.integers(0, 99), activation=st.sampled_from(sorted(CLIPPED)))
def test_with_an_activation_that_the_original_has_not_it_is_no_worse(seed, activation):
    """What is wanted is the sum itself, and what skips add comes behind the activation."""
    responses, clip = made(seed), CLIPPED[activation]

    def far(found) -> float:
        weights = torch.cat([found.convolution.weight.flatten(1), found.convolution.bias[:, None]], 1).T[None]
        result = predicted(responses.patches, weights).clamp(*clip) + responses.added
        return float((result - responses.wanted).square().mean())

    plain = fit_responses(responses, POINT, choose_ridge=False)
    aware = fit_responses(responses, POINT, clip=clip, choose_ridge=False, linear=True)
    assert far(aware) < far(plain)


def test_what_is_hidden_below_zero_does_no_harm():
    """The sums are linear wherever they show, and anything else below zero: rounds of the two steps find the line."""
    responses = made(3)
    plain = fit_responses(responses, POINT)
    with mock.patch.multiple(module, ROUNDS=200, GAIN=0.0):
        aware = fit_responses(responses, POINT, clip=(0.0, inf))
    assert missed(aware, responses, (0.0, inf)) < 0.02 * missed(plain, responses, (0.0, inf))


@settings(max_examples=50)
@given(sums=st.floats(-9, 9), wanted=st.floats(-9, 9), clip=st.sampled_from([(0.0, inf), (0.0, 6.0), (-1.0, 2.0)]))
def test_the_intermediate_response_is_the_best_one(sums, wanted, clip):
    low, high = clip
    grid = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    cost = lambda z: (z.clamp(low, high) - wanted) ** 2 + module.TRUST * (z - sums) ** 2  # noqa: E731
    z = module._intermediate(torch.tensor([sums]).double(), torch.tensor([wanted]).double(), low, high)
    assert float(cost(z)) <= float(cost(grid).min()) + 1e-9


def test_the_ridge_is_the_one_that_serves_unseen_patches():
    """Few noisy samples of many unknowns want a larger ridge than many clean ones."""
    ridges, chosen = [], []
    real = module.Primal

    def spy(gram, ridge):
        ridges.append(ridge)
        return real(gram, ridge)

    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(1, 41, 1, generator=generator)
    for samples, noise in ((45, 40.0), (4000, 0.0)):
        rows = torch.cat([torch.randn(1, samples, 40, generator=generator), torch.ones(1, samples, 1)], 2)
        wanted = rows @ truth + noise * torch.randn(1, samples, 1, generator=generator)
        with mock.patch.object(module, "Primal", spy):
            fit_responses(Responses(rows, wanted, torch.zeros_like(wanted)), Geometry(40, 1, (1, 1)))
        chosen.append(ridges[-1])
    assert chosen == [max(module.RIDGES), min(module.RIDGES)]


@pytest.mark.parametrize("clip", [None, (0.0, inf)])
def test_more_unknowns_than_a_matrix_may_have(clip):
    responses = made(1)
    direct = fit_responses(responses, POINT, clip=clip, choose_ridge=False)
    with mock.patch.object(patches, "LARGEST_SYSTEM", 2), mock.patch.object(ridge, "WIDE_RIDGES", (ridge.RIDGE,)):
        other = fit_responses(responses, POINT, clip=clip, choose_ridge=False)
    torch.testing.assert_close(direct.convolution.weight, other.convolution.weight, rtol=1e-4, atol=1e-4)
