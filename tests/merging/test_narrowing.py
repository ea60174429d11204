"""A narrowed network computes what the wide one does when nothing reads what was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from tests.merging.conftest import anew, randomise
from tests.network.written import Net, conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting
from trt_layermerge.blocks.sized_choices import sized_choices, widths_of
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.narrowing import Kept, masked, narrow
from trt_layermerge.merging.proof import prove_network, relative_error
from trt_layermerge.merging.reconstruction import PAPERS, PLAIN, Strength
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.channel_groups import find_channel_groups
from trt_layermerge.network.count import size_of
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network, load_network, trace

ROOT = Path(__file__).parents[2]
SHAPE = (4, 8, 8)


def plain(m: Any, x: Tensor) -> Tensor:
    x = F.max_pool2d(m.p(m.n(m.a(x))), 2)
    return m.l(F.silu(m.b(x)).flatten(1))


def residual(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    x = F.relu(m.c(F.relu(m.n(m.b(x)))) + x)
    x = F.relu(m.e(F.relu(m.d(x))) + m.s(x))
    return m.l(F.adaptive_avg_pool2d(x, 1).flatten(1))


def inverted(m: Any, x: Tensor) -> Tensor:
    x = m.n(m.a(x))
    x = x + m.d(F.relu6(m.o(m.c(F.relu6(m.b(x))))))
    return m.l(x.mean((2, 3)))


def gated(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    x = x * F.hardsigmoid(m.g(F.relu(m.f(F.adaptive_avg_pool2d(x, 1)))))
    gate = torch.clamp(0.2 * m.i(F.relu(m.h(x.mean((2, 3))))) + 0.5, 0, 1)
    return m.l(F.adaptive_avg_pool2d(m.b(x * gate.view(-1, 6, 1, 1)), 2).flatten(1))


NETWORKS: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module]]] = {
    "plain": (
        plain, {"a": conv(4, 6), "n": nn.BatchNorm2d(6), "p": nn.PReLU(6), "b": conv(6, 5), "l": nn.Linear(80, 3)}
    ),
    "residual": (
        residual,
        {
            "a": conv(4, 6), "b": conv(6, 5, bias=False), "n": nn.BatchNorm2d(5), "c": conv(5, 6),
            "d": conv(6, 7, stride=2), "e": conv(7, 8), "s": conv(6, 8, 1, stride=2), "l": nn.Linear(8, 3),
        },
    ),
    "inverted": (
        inverted,
        {
            "a": conv(4, 5), "n": nn.BatchNorm2d(5), "b": conv(5, 9, 1), "c": conv(9, 9, groups=9),
            "o": nn.BatchNorm2d(9), "d": conv(9, 5, 1), "l": nn.Linear(5, 3),
        },
    ),
    "gated": (
        gated,
        {
            "a": conv(4, 6), "f": conv(6, 3, 1), "g": conv(3, 6, 1), "h": nn.Linear(6, 2), "i": nn.Linear(2, 6),
            "b": conv(6, 4), "l": nn.Linear(16, 3),
        },
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return network_of(request.param)


def network_of(name: str) -> Network:
    function, modules = NETWORKS[name]
    return trace(name, anew(Net(function, **modules)), SHAPE)


@st.composite
def kept_of(draw: st.DrawFn, groups: tuple[ChannelGroup, ...]) -> Kept:
    """Any channels of any groups, at least one of each."""
    some = draw(st.lists(st.sampled_from(groups), unique=True, min_size=1))
    return {group: sorted(draw(st.sets(st.integers(0, group.channels - 1), min_size=1))) for group in some}


def assert_same(one: fx.GraphModule, other: fx.GraphModule, shape: tuple[int, ...] = SHAPE) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert relative_error(one(x), other(x)) < 1e-5


@given(data=st.data())
def test_a_narrowed_network_is_the_masked_one(network: Network, data: st.DataObject) -> None:
    kept = data.draw(kept_of(network.channel_groups))
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    narrowed, wide = narrow(network.module, kept), masked(network.module, kept)
    assert_same(narrowed, wide)
    shapes = {node.name: node.meta.get("shape") for node in narrowed.graph.nodes}
    for group, channels in kept.items():
        part = narrowed.get_submodule(str(next(n.target for n in narrowed.graph.nodes if n.name == group.producers[0])))
        assert len(part.weight) == len(channels) == shapes[group.producers[0]][0]
    assert_shapes_hold(narrowed)
    after = network.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the original is changed"


def assert_shapes_hold(module: fx.GraphModule) -> None:
    """What nodes are said to hold is what they hold."""

    class Checked(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.op != "output" and "shape" in n.meta:
                assert tuple(value.shape[1:]) == n.meta["shape"], n
            return value

    Checked(module).run(torch.zeros(2, *SHAPE))


def test_a_narrowed_network_has_the_groups_that_it_had(network: Network) -> None:
    """And can be narrowed again."""
    half = {group: range(max(2, group.channels // 2)) for group in network.channel_groups}
    again, _ = find_channel_groups(narrow(network.module, half), network.chains)
    assert again == tuple(replace(group, channels=len(channels)) for group, channels in half.items())


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("examples/fashion_mnist/model.py:resnet20", (1, 28, 28)),
        ("examples/fashion_mnist/vgg.py:vgg16", (1, 28, 28)),
        ("torchvision:mobilenet_v2", (3, 32, 32)),
        ("torchvision:mobilenet_v3_small", (3, 32, 32)),
        ("torchvision:googlenet", (3, 64, 64)),
        ("torchvision:shufflenet_v2_x0_5", (3, 32, 32)),
    ],
)
def test_published_networks_are_narrowed(spec: str, shape: tuple[int, ...]) -> None:
    network = load_network(f"{ROOT}/{spec}" if spec.startswith("examples") else spec, None, shape)
    randomise(network.module, 0)
    kept = {group: torch.randperm(group.channels)[group.channels // 3 :].tolist() for group in network.channel_groups}
    narrowed = narrow(network.module, kept)
    assert_same(narrowed, masked(network.module, kept), shape)
    assert size_of(narrowed).flops < 0.8 * size_of(network.module).flops


@settings(max_examples=20)
@given(data=st.data())
def test_narrowing_works_behind_a_plan(networks: Any, plans: Any, data: st.DataObject) -> None:
    """On a network in which blocks are replaced, each group is narrowed whose tensors are still there."""
    network = data.draw(networks)
    assume(network.channel_groups)
    merged = execute(network, data.draw(plans(network)), [torch.randn(4, 4, 17, 15)]).merged
    kept = data.draw(kept_of(network.channel_groups))
    try:
        narrowed, wide = narrow(merged, kept), masked(merged, kept)
    except ValueError:
        assume(False)
    assert_same(narrowed, wide, (4, 17, 15))


@settings(max_examples=30)
@given(data=st.data())
def test_any_plan_is_narrowed_and_proved(networks: Any, plans: Any, data: st.DataObject) -> None:
    """Merges, fits and kept layers, solved for what stays: the narrow network against the wide, unmerged one."""
    network = data.draw(networks)
    assume(network.channel_groups)
    plan, kept = data.draw(plans(network)), data.draw(kept_of(network.channel_groups))
    strength = data.draw(st.sampled_from([Strength(), PLAIN, PAPERS]))
    try:
        result = execute(network, plan, [torch.randn(4, 4, 17, 15)], strength=strength, kept=kept)
    except ModelError as error:
        assert "channels cannot be left out behind these blocks" in str(error)
        assume(False)
    prove_network(result.linearised, result.merged, torch.randn(2, 4, 17, 15), result.proofs)


def test_every_choice_is_executed_in_each_of_its_widths() -> None:
    """Of blocks, too, whose convolution is padded unevenly, such as even kernels across a pooling."""
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    function = lambda m, x: m.l(F.relu(m.b(F.max_pool2d(F.relu(m.a(x)), 2))).mean((2, 3)))  # noqa: E731
    network = trace("pooled", Net(function, a=conv(), b=conv(4, 6), l=nn.Linear(6, 2)), SHAPE)
    offered = widths_of(network, (0.5,), 1)
    sized = [one for one in sized_choices(network, choices_of(network), offered, Setting(1)) if one.widths]
    uneven = 0
    for one in sized:
        kept = {network.channel_groups[number]: range(channels) for number, channels in one.widths}
        made = execute(network, [one.choice], [x], strength=PLAIN, kept=kept)
        prove_network(made.linearised, made.merged, x, made.proofs)
        padding = one.executed.geometry.padding if one.executed.geometry else (0, 0, 0, 0)
        uneven += padding[:2] != padding[2:] and any(len(channels) < group.channels for group, channels in kept.items())
    assert uneven


def test_a_group_that_stays_whole_may_meet_channels_that_must_stay() -> None:
    network = network_of("residual")
    stream = network.channel_groups[0]
    fixed = replace(stream, producers=("l",), through=())
    assert_same(narrow(network.module, {fixed: range(6)}), network.module)


def test_what_reads_narrowed_channels_is_solved_for_them(network: Network) -> None:
    """By a plan that keeps every layer: nearer to the original than without data."""
    torch.manual_seed(0)
    batches = [torch.randn(400, *SHAPE)]
    kept = {group: range(group.channels // 2 + 1) for group in network.channel_groups}
    keeps = [choice for choice in choices_of(network) if choice.kind is Kind.KEEP]
    x = torch.randn(50, *SHAPE)

    def distance(strength: Strength, data: list[Tensor]) -> float:
        made = execute(network, keeps, data, strength=strength, kept=kept)
        prove_network(made.linearised, made.merged, x)
        assert len(made.merged.get_submodule("a").weight) == len(next(iter(kept.values())))
        with torch.no_grad():
            return float((made.merged(x) - network.module(x)).square().mean())

    whole, plain, blind = distance(Strength(), batches), distance(PLAIN, batches), distance(Strength(), [])
    print("RATIO", whole / blind, plain / blind)
    assert whole < 0.7 * blind and plain < 0.8 * blind, (whole, plain, blind)


def test_a_tensor_is_known_although_all_around_it_is_replaced() -> None:
    function = lambda m, x: m.d(F.relu(m.c(F.relu(m.b(F.relu(m.a(x)))))))  # noqa: E731
    network = trace("row", Net(function, a=conv(), b=conv(), c=conv(), d=conv()), SHAPE)
    point = Geometry(4, 4, (3, 3), padding=(1, 1, 1, 1))
    blocks = [Choice(Block(0, start, start + 2), Kind.FIT, point) for start in (0, 2)]
    merged = execute(network, blocks, [torch.randn(4, *SHAPE)]).merged
    first, between, _ = network.channel_groups
    narrowed = narrow(merged, {between: [0, 3]})
    assert (
        narrowed.get_submodule("merged_0_0_2").out_channels == narrowed.get_submodule("merged_0_2_4").in_channels == 2
    )
    assert size_of(narrow(merged, {first: [0]})) == size_of(merged), "it has vanished"


def test_what_cannot_stay_is_an_error() -> None:
    network = network_of("residual")
    stream = network.channel_groups[0]
    for channels in ([], [6], [-1]):
        with pytest.raises(ValueError, match="of the 6 that a makes"):
            narrow(network.module, {stream: channels})
    fixed = replace(stream, producers=("l",), through=())
    with pytest.raises(ValueError, match="the channels of l must all stay here"):
        narrow(network.module, {fixed: [0]})


def test_a_block_that_is_left_out_makes_groups_one() -> None:
    function = lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x)))))  # noqa: E731
    network = trace("row", Net(function, a=conv(), b=conv(), c=conv()), SHAPE)
    dropped = execute(network, [Choice(Block(0, 1, 2), Kind.IDENTITY, None)], []).merged
    first, second = network.channel_groups
    assert_same(narrow(dropped, {first: [0, 2], second: [0, 2]}), masked(dropped, {first: [0, 2]}))
    with pytest.raises(ValueError, match="the channels of two groups"):
        narrow(dropped, {first: [0, 2], second: [1, 2]})
