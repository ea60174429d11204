"""A decoupled network begins as the original, ends as the linearised one, and merges without loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.errors import UsageError
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, trace
from trt_layermerge.training.decoupling import decouple, fade, settled
from trt_layermerge.training.gating import Gate, hold
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.recipe import Recipe
from trt_layermerge.training.task import Classification

SHAPE = (2, 4, 4)


class Residual(nn.Module):
    def __init__(self, body: nn.Module, skip: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.body, self.skip, self.act = body, skip, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.skip(x))


class TwoSkips(nn.Module):
    """One skip leads around two layers, and another one starts between them: with both dropped, it stays."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.skip, self.last = nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.first(x))
        return self.last(self.second(y) + self.skip(y) + x)


def unit(channels: int, out: int, kernel: int = 3, **more: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False, **more), nn.BatchNorm2d(out)]


def source(number: int) -> nn.Module:
    """Plain layers, a residual block, one whose width changes around a smaller one, one with a stride, two skips."""
    inner = Residual(nn.Sequential(*unit(6, 6), nn.ReLU(), nn.Conv2d(6, 6, 1)), nn.Identity(), nn.ReLU())
    bottleneck = nn.Sequential(*unit(4, 6, 1), nn.ReLU(), inner, *unit(6, 4, 3))
    strided = nn.Sequential(*unit(4, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    middle: list[list[nn.Module]] = [
        [*unit(4, 4), nn.PReLU(4), *unit(4, 4, 1), nn.ReLU6()],
        [Residual(nn.Sequential(*unit(4, 4), nn.ReLU(), *unit(4, 4, groups=4)), nn.Identity(), nn.ReLU())],
        [Residual(bottleneck, nn.Identity(), nn.ReLU())],
        [Residual(strided, nn.Conv2d(4, 4, 1, 2), nn.SiLU())],
        [TwoSkips()] if number == 4 else [],
    ]
    return nn.Sequential(
        *unit(2, 4), nn.ReLU(), *middle[number], *unit(4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.fixture(scope="module")
def networks(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> list[Network]:
    made = []
    for number in range(5):
        torch.manual_seed(number)
        module = source(number)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):  # as after training
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.5)
                nn.init.normal_(part.running_mean, 0, 0.3)
        made.append(quick(module, SHAPE))
    return made


@st.composite
def plans(draw: st.DrawFn, network: Network) -> list[Choice]:
    """Any tiling of the chains with keeps, merges and drops."""
    choices = [choice for choice in choices_of(network, Limits(9, 6)) if choice.kind is not Kind.FIT]
    taken: list[Choice] = []
    for chain in network.chains:
        at = 0
        while at < len(chain):
            here = [one for one in choices if (one.block.chain, one.block.start) == (chain.index, at)]
            taken.append(draw(st.sampled_from(here)))
            at = taken[-1].block.end
    return taken


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60)
@given(data=st.data())
def test_it_begins_as_the_original_and_ends_as_the_linearised_network(networks: list[Network], data) -> None:
    network = data.draw(st.sampled_from(networks))
    plan = data.draw(plans(network))
    decoupled = decouple(network, plan).double().eval()
    linearised = execute(network, plan, ()).linearised.double()
    for share, expected in ((0.0, network.module.double()), (1.0, linearised)):
        fade(decoupled, share)
        torch.testing.assert_close(decoupled(images()), expected(images()), rtol=1e-10, atol=1e-10)


def longest(network: Network, kinds: str = "merge identity") -> list[Choice]:
    """A plan of the largest blocks: of equal ones, that which drops most."""
    plan: list[Choice] = []
    for chain in network.chains:
        at = 0
        while at < len(chain):
            here = [
                one
                for one in choices_of(network, Limits(9, 6))
                if (one.block.chain, one.block.start) == (chain.index, at) and one.kind in f"keep {kinds}"
            ]
            plan.append(max(here, key=lambda one: (one.block.end, -len(one.kept))))
            at = plan[-1].block.end
    return plan


@pytest.mark.parametrize("number", range(5))
def test_half_way_it_is_neither_and_every_gate_learns(networks: list[Network], number: int) -> None:
    network = networks[number]
    decoupled = decouple(network, longest(network)).double().eval()
    ends = []
    for share in (0.0, 0.5, 1.0):
        fade(decoupled, share)
        ends.append(decoupled(images()))
    assert not torch.allclose(ends[1], ends[0]) and not torch.allclose(ends[1], ends[2])
    fade(decoupled, 0.5)
    decoupled(images()).square().sum().backward()
    gates = [part for part in decoupled.modules() if isinstance(part, Gate)]
    assert gates and all(gate.own.grad is not None and gate.own.grad.abs().sum() > 0 for gate in gates)


@given(own=st.floats(-2, 2), share=st.floats(0, 1))
def test_a_gate_is_in_range_and_never_below_its_schedule(networks: list[Network], own: float, share: float) -> None:
    decoupled = decouple(networks[0], longest(networks[0]))
    for part in decoupled.modules():
        if isinstance(part, Gate):
            nn.init.constant_(part.own, own)
    hold(decoupled)
    fade(decoupled, share)
    (gate, *_) = (part for part in decoupled.modules() if isinstance(part, Gate))
    one, zero = torch.ones(1, len(gate.own), 1, 1), torch.zeros(1, len(gate.own), 1, 1)
    value = gate(one, zero)
    assert (value >= share - 1e-6).all() and (value <= 1 + 1e-6).all()


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("kinds", ["merge", "merge identity"])
def test_what_was_trained_merges_without_loss(
    networks: list[Network], task: Classification, tmp_path: Path, number: int, kinds: str
) -> None:
    network = networks[number]
    network.module.float()
    plan = longest(network, kinds)
    decoupled = decouple(network, plan)
    recipe = Recipe(epochs=2, lr=0.02, decouple=0.5, checkpoint_seconds=3600)
    fine_tune(decoupled, task, recipe, checkpoint=tmp_path / "run.checkpoint")
    trained = settled(network, decoupled)
    compression = execute(trained, plan, ())
    inputs = images().float()
    proof = prove_network(decoupled, compression.merged, inputs, compression.proofs)
    assert proof.end_to_end <= 1e-4
    with torch.no_grad():
        before = execute(network, plan, ()).merged(inputs)
        assert not torch.allclose(compression.merged(inputs), before, atol=1e-3)  # it has learned something
    assert trained.weights_hash != network.weights_hash


def test_fading_resumes_exactly(networks: list[Network], task: Classification, tmp_path: Path) -> None:
    network = networks[2]
    network.module.float()
    plan, recipe = longest(network), Recipe(epochs=2, lr=0.02, decouple=0.6, checkpoint_seconds=3600)

    def stop(done: int, total: int, label: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    whole, stopped = decouple(network, plan), decouple(network, plan)
    fine_tune(whole, task, recipe, checkpoint=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fine_tune(decouple(network, plan), task, recipe, checkpoint=tmp_path / "stopped", progress=stop)
    assert fine_tune(stopped, task, recipe, checkpoint=tmp_path / "stopped").resumed_at == 4
    state = stopped.state_dict()
    assert [name for name, value in whole.state_dict().items() if not torch.equal(value, state[name])] == []
    assert torch.equal(whole(images().float()), stopped(images().float()))


def test_a_fit_cannot_be_decoupled(networks: list[Network]) -> None:
    fit = next(one for one in choices_of(networks[0]) if one.kind is Kind.FIT)
    with pytest.raises(UsageError, match="decoupling executes merges alone"):
        decouple(networks[0], [fit])


def test_a_plan_that_keeps_everything_changes_nothing(networks: list[Network]) -> None:
    network = networks[1]
    keeps = [one for one in choices_of(network) if one.kind is Kind.KEEP]
    decoupled = decouple(network, keeps)
    assert decoupled.state_dict().keys() == network.module.state_dict().keys()


class Late(nn.Module):
    """The activation stands before the addition: it is part of the branch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch, self.last = (nn.Sequential(*unit(i, 4), nn.ReLU()) for i in (2, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(self.branch(y) + y)


def test_a_branch_with_its_activation_does_not_fade(quick: Callable[..., Network]) -> None:
    network = quick(Late(), SHAPE)
    (drop,) = [one for one in choices_of(network) if one.key == "0:1-2 identity"]
    with pytest.raises(UsageError, match="takes away a branch and the activation behind it with 0:1-2 identity"):
        decouple(network, [drop])


class Timed(nn.Module):
    """The first of two layers is told a time step; group norms may stand before both."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(2, 4) if norm else nn.Identity() for _ in range(2))
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2)
        self.time, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.norms[0](x)) + self.time(x.mean((2, 3)))[:, :, None, None]
        return self.second(self.norms[1](self.act(y)))


def test_a_layer_that_is_dropped_takes_its_shift_with_it_as_it_fades() -> None:
    torch.manual_seed(0)
    network = trace("timed", Timed(norm=False).eval(), (4, 5, 5))
    x = torch.randn(3, 4, 5, 5)
    choices = choices_of(network, Limits(regions=False))
    merges = [one for one in choices if one.kind in (Kind.MERGE, Kind.IDENTITY)]
    assert {one.kept for one in merges} >= {(), (1,), (2,), (1, 2)}
    for choice in merges:
        decoupled = decouple(network, [choice]).eval()
        for share, expected in ((0.0, network.module), (1.0, execute(network, [choice], ()).linearised)):
            fade(decoupled, share)
            torch.testing.assert_close(decoupled(x), expected(x), rtol=1e-5, atol=1e-5)


def test_a_group_norm_does_not_fade() -> None:
    """One inside of a merge, and one before a layer that is dropped."""
    network = trace("timed", Timed(norm=True).eval(), (4, 5, 5))
    choices = choices_of(network, Limits(regions=False))
    taken = {one.key for one in choices if one.kind in (Kind.MERGE, Kind.IDENTITY)}
    assert taken >= {"0:0-1 identity", "0:1-2 identity", "0:0-2 merge 7x7 g1", "0:0-2 identity"}
    for choice in choices:
        if choice.key in taken:
            with pytest.raises(UsageError, match=f"takes away a group norm with {choice.key}"):
                decouple(network, [choice])


def test_an_activation_that_is_added_does_not_fade_in(quick: Callable[..., Network]) -> None:
    narrow = nn.Sequential(nn.Conv2d(2, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 1))
    network = quick(narrow, SHAPE)
    (choice, *_) = [
        one
        for one in choices_of(network, Limits(bottleneck_activations=True))
        if one.activation and one.kind is Kind.MERGE
    ]
    with pytest.raises(UsageError, match=r"adds an activation in 0:0-2 merge 1x1 g1 \+relu"):
        decouple(network, [choice])
