"""Executing a plan: merges are proved, fits see the compressed network and aim at the original."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.network.written import Net
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.errors import ModelError, TaskError
from trt_layermerge.merging.fitting import NormalEquations
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.reconstruction import PLAIN
from trt_layermerge.merging.rewrite import rewrite
from trt_layermerge.merging.sequential import execute, prior_of
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import trace

THREE = Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1))


class Branch(nn.Module):
    """``relu(x + conv(relu(conv(x))))``, with a projection where there is a stride."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, stride, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.skip = nn.Conv2d(4, 4, 1, stride) if stride > 1 else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))) + self.skip(x))


@pytest.fixture(scope="module")
def residual(quick):
    """Five layers: a stem and two branches, the second with a projection."""
    torch.manual_seed(3)
    return quick(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), Branch(), Branch(2)), (4, 9, 9))


def fit(start: int, end: int, geometry: Geometry = THREE) -> Choice:
    return Choice(Block(0, start, end), Kind.FIT, geometry)


STRIDED = Geometry(4, 4, (3, 3), (2, 2), (1, 1, 1, 1))
BRANCHES = (fit(1, 3), fit(3, 5, STRIDED))


@settings(max_examples=20)
@given(data=st.data())
def test_any_plan_is_carried_out_and_proved(networks, plans, images, data):
    network = data.draw(networks)
    plan = data.draw(plans(network))
    state = {name: value.clone() for name, value in network.module.state_dict().items()}
    told = []
    result = execute(network, data.draw(st.permutations(plan)), [images(3)], lambda *what: told.append(what))
    prove_network(result.linearised, result.merged, images(2, seed=1), result.proofs)
    assert {proof.block for proof in result.proofs} == {f"block {c.block}" for c in plan if c.kind is Kind.MERGE}
    assert set(result.fits) == {choice.key for choice in plan if choice.kind is Kind.FIT}
    assert told == [(number, len(plan), choice.key) for number, choice in enumerate(plan)]
    assert set(result.refits) <= {choice.key for choice in plan if choice.kind is Kind.KEEP}
    assert all(torch.equal(state[name], value) for name, value in network.module.state_dict().items())
    for fitted in result.fits.values():
        assert fitted.residual < 1e-8
        assert fitted.unexplained >= 0
    merged, linear = (dict(m.named_parameters()) for m in (result.merged, result.linearised))
    assert not {id(p) for p in merged.values()} & {id(p) for p in linear.values()}, "the two share weights"
    assert not {id(p) for p in merged.values()} & {id(p) for p in network.module.parameters()}


def test_a_fit_sees_the_compressed_network(residual, images):
    """What the second block is fitted on, by hand: the merged first one's output, and its projection of that."""
    batches = [images(4, (4, 9, 9), seed) for seed in (1, 2)]
    result, (chain,) = execute(residual, BRANCHES, batches, strength=PLAIN), residual.chains
    first, second = result.merged.get_submodule("merged_0_1_3"), result.merged.get_submodule("merged_0_3_5")
    teacher = up_to(residual.module, [chain.tensor(1), chain.layers[4].before_activation])
    equations = NormalEquations(STRIDED)
    with torch.no_grad():
        for x in batches:
            stem, target = teacher(x)
            equations.add(first(stem).relu(), target)
    expected = equations.solve(STRIDED, prior_of(residual, BRANCHES[1])).convolution
    torch.testing.assert_close(second.weight, expected.weight.float(), rtol=1e-4, atol=1e-5)


class Outer(nn.Module):
    """Two layers beside a skip that goes around both and another layer."""

    def __init__(self, projected: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.skip = nn.Conv2d(4, 4, 1) if projected else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x):
        a, b, c = self.layers
        return self.act(c(self.act(b(self.act(a(x))))) + self.skip(x))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "projected"])
def outer(request, quick):
    torch.manual_seed(4)
    body = [Outer(request.param), Outer(request.param)]
    return quick(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), *body), (4, 8, 8))


OUTER = (fit(1, 2, Geometry(4, 4, (1, 1))), fit(2, 4), fit(5, 7))
"""In the first branch one fit without and one with an outer skip, and one with it in the second branch."""


def test_sequential_fits_make_up_for_the_drift(outer, images):
    """On what they were fitted on, they end no further from the original than fits that know only the original."""
    batches, (chain,) = [images(6, (4, 8, 8), seed) for seed in (1, 2)], outer.chains
    together = execute(outer, OUTER, batches)
    alone = {choice: execute(outer, [choice], batches).merged for choice in OUTER}
    names = {choice: f"merged_0_{choice.block.start}_{choice.block.end}" for choice in OUTER}
    independent = rewrite(outer, {choice: alone[choice].get_submodule(names[choice]) for choice in OUTER})
    first = OUTER[0]
    assert torch.equal(
        together.merged.get_submodule(names[first]).weight, alone[first].get_submodule(names[first]).weight
    )

    def drift(module):
        with torch.no_grad():
            return sum(float((module(x) - outer.module(x)).square().sum()) for x in batches)

    assert drift(together.merged) < drift(independent)
    assert chain.skips[0].end == 4


def test_an_exact_fit_is_exact(quick, images):
    """A block without activations and padding inside is one convolution, so nothing is lost."""
    network = quick(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)), (4, 7, 7))
    result = execute(network, [fit(0, 2, Geometry(4, 4, (3, 3)))], [images(20, (4, 7, 7))])
    (fitted,) = result.fits.values()
    assert fitted.unexplained < 1e-6


def test_what_a_fit_is_drawn_to(residual):
    whole = prior_of(residual, fit(1, 3))
    assert whole is not None and whole.geometry.kernel == (1, 1)
    assert prior_of(residual, fit(1, 2)) is None, "no skip inside"
    projected = prior_of(residual, fit(3, 5, STRIDED))
    assert torch.equal(projected.weight.float(), residual.module.get_submodule("3.skip").weight)
    point = Geometry(4, 4, (1, 1), (2, 2))
    assert prior_of(residual, fit(3, 5, point)) is not None
    shifted = Geometry(4, 4, (1, 1), (2, 2), (1, 1, 0, 0))
    assert prior_of(residual, fit(3, 5, shifted)) is None, "it does not fit in the kernel"


@pytest.mark.parametrize("last", [False, True])
def test_a_prior_needs_the_shape_that_dropping_leaves(quick, last):
    """A layer that changes the shape cannot be dropped."""
    odd = nn.Conv2d(4, 4, 1, 2)
    module = nn.Sequential(Branch(), odd) if last else nn.Sequential(odd, nn.ReLU(), Branch())
    network = quick(module, (4, 9, 9))
    fits = [c for c in choices_of(network) if c.kind is Kind.FIT and len(c.block) == 3]
    assert fits
    assert all(prior_of(network, choice) is None for choice in fits)


def test_no_data_is_an_error_only_where_there_is_a_fit(residual):
    for batches in ([], [torch.zeros(0, 4, 9, 9)]):
        with pytest.raises(TaskError, match="no calibration data"):
            execute(residual, BRANCHES, batches)
        execute(residual, [Choice(Block(0, 1, 3), Kind.IDENTITY, None)], batches)


def test_activations_that_are_not_finite_name_the_block(residual, images):
    with pytest.raises(ModelError, match=r"block 0:1-3 .* not finite"):
        execute(residual, BRANCHES, [images(2, (4, 9, 9)) / 0])


def test_a_linear_layer_in_a_region_goes_with_it(images):
    """As in ConvNeXt; there is nothing left to be solved again."""

    def block(m, x):
        y = m.deep(m.stem(x)).permute(0, 2, 3, 1)
        return m.out(m.narrow(torch.relu(m.wide(y))).permute(0, 3, 1, 2) + x)

    modules = {"stem": nn.Conv2d(4, 4, 1), "deep": nn.Conv2d(4, 4, 3, padding=1, groups=4), "out": nn.Conv2d(4, 4, 1)}
    network = trace("net", Net(block, **modules, wide=nn.Linear(4, 8), narrow=nn.Linear(8, 4)), (4, 8, 8))
    fits = [choice for choice in choices_of(network) if choice.kind is Kind.FIT and choice.block.region is not None]
    for choice in fits:
        made = execute(network, [choice], [images(4, (4, 8, 8))])
        assert choice.key in made.fits
    assert any(network.regions[choice.block.region].output == "add" for choice in fits)
