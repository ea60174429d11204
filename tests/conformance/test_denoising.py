"""Networks like DDPM's: norms before convolutions, shifts by a time step, several inputs; case by case, then as one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.blocks import lowering
from trt_layermerge.blocks.candidates import choices_of, fit_geometries
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.blocks.sized_choices import sized_choices, widths_of
from trt_layermerge.importance.frames import accumulate, frames_of
from trt_layermerge.merging.linear import LinearisedBlock, folded
from trt_layermerge.merging.modules import Normed, Shifted
from trt_layermerge.merging.proof import prove_block, prove_network
from trt_layermerge.merging.reconstruction import PLAIN, Strength
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.chain import Layer
from trt_layermerge.network.inputs import Input, examples
from trt_layermerge.network.network import Network, load_network, trace

ROOT = Path(__file__).parents[2]
TWO = (Input("x", (4, 9, 7)), Input("t", (6,)))


class Net(nn.Module):
    """A function of itself, an image and a vector; ``s`` is the vector's projection."""

    def __init__(self, function: Callable[[Any, Tensor, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(self, x, t)


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


def projected(m: Any, t: Tensor) -> Tensor:
    return m.s(t)[:, :, None, None]


@dataclass(frozen=True)
class Case:
    """A network of one chain.

    Attributes:
        build: Makes it.
        layers: Of its chain: which have a pre-norm, and which a shift, by their numbers.
    """

    build: Callable[[], nn.Module]
    pre_norms: tuple[int, ...] = ()
    shifts: tuple[int, ...] = ()


def case(function: Callable[[Any, Tensor, Tensor], Tensor], pre_norms: tuple[int, ...] = (),
         shifts: tuple[int, ...] = (), **modules: Callable[[], nn.Module]) -> Case:  # fmt: skip
    return Case(lambda: Net(function, **{name: make() for name, make in modules.items()}), pre_norms, shifts)


def two_residuals(m: Any, x: Tensor, t: Tensor) -> Tensor:
    y = m.b(F.silu(m.n2(m.a(F.silu(m.n1(x))) + projected(m, t)))) + x
    return m.d(F.silu(m.n4(m.c(F.silu(m.n3(y))) + projected(m, t)))) + m.p(y)


def norm(channels: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.GroupNorm(2, channels)


S = {"s": lambda: nn.Linear(6, 4)}
CASES = {
    "a shift through a kernel": case(
        lambda m, x, t: m.b(F.relu(m.a(x) + projected(m, t))), shifts=(1,), a=conv, b=conv, **S
    ),
    "a shift through two kernels, stride and dilation": case(
        lambda m, x, t: m.c(F.relu(m.b(F.relu(m.a(x) + projected(m, t))))),
        shifts=(1,),
        a=lambda: conv(stride=2),
        b=lambda: conv(dilation=2, padding=2),
        c=lambda: conv(o=6, k=5),
        **S,
    ),
    "a shift through groups": case(
        lambda m, x, t: m.c(m.b(m.a(x) + projected(m, t)).relu()),
        shifts=(1,),
        a=conv,
        b=lambda: conv(groups=4),
        c=lambda: conv(groups=2),
        **S,
    ),
    "a shift before a batch norm": case(
        lambda m, x, t: m.b(F.relu(m.n(m.a(x) + projected(m, t)))),
        shifts=(1,),
        a=conv,
        b=conv,
        n=lambda: nn.BatchNorm2d(4),
        **S,
    ),
    "shifts of two layers": case(
        lambda m, x, t: m.c(m.b((m.a(x) + projected(m, t)).relu()) + projected(m, 2 * t)),
        shifts=(1, 2),
        a=conv,
        b=conv,
        c=conv,
        **S,
    ),
    "a shift around a skip": case(
        lambda m, x, t: m.c(F.relu(m.b(F.relu(m.a(x) + projected(m, t))) + m.p(x))),
        shifts=(1,),
        a=conv,
        b=conv,
        c=conv,
        p=lambda: conv(k=1),
        **S,
    ),
    "a skip from what is shifted": case(
        lambda m, x, t: m.c((m.b(y := m.a(x) + projected(m, t)) + y).relu()), shifts=(1,), a=conv, b=conv, c=conv, **S
    ),
    "uneven padding behind a shift": case(
        lambda m, x, t: m.b(F.pad(F.relu(m.a(x) + projected(m, t)), (0, 1, 0, 1))),
        shifts=(1,),
        a=conv,
        b=lambda: conv(stride=2, padding=0),
        **S,
    ),
    "a pre-norm with no activation": case(
        lambda m, x, t: m.b(m.n(m.a(x))), pre_norms=(2,), a=conv, b=conv, n=norm(), **S
    ),
    "norms of other widths": case(
        lambda m, x, t: m.b(F.silu(m.n2(m.a(F.silu(m.n1(x)))))),
        pre_norms=(1, 2),
        a=lambda: conv(o=6),
        b=lambda: conv(6, 4),
        n1=norm(),
        n2=norm(6),
        **S,
    ),
    "two blocks of DDPM in a row": case(
        two_residuals,
        pre_norms=(1, 2, 3, 4),
        shifts=(1, 3),
        **{name: conv for name in "abcd"},
        **{f"n{i}": norm() for i in range(1, 5)},
        p=lambda: conv(k=1),
        **S,
    ),
}


def randomise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES.keys())
def one(request: pytest.FixtureRequest) -> tuple[Case, Network]:
    torch.manual_seed(0)
    source = request.param.build()
    randomise(source)
    return request.param, trace("case", source, TWO)


@pytest.fixture(scope="module")
def unet() -> Network:
    return load_network(f"{Path(__file__).parent / 'unet.py'}:unet")


def merges(network: Network) -> list[Choice]:
    return [
        c
        for c in choices_of(network, Limits(max_kernel=99, max_layers=6))
        if c.kind is Kind.MERGE and c.block.region is None
    ]


def test_each_case_is_one_chain_that_has_it(one: tuple[Case, Network]) -> None:
    expected, network = one
    (chain,) = network.chains
    assert tuple(layer.index for layer in chain.layers if layer.pre_norm) == expected.pre_norms
    assert tuple(layer.index for layer in chain.layers if layer.shift) == expected.shifts


def test_every_merge_is_proved(one: tuple[Case, Network]) -> None:
    _, network = one
    (chain,), choices = network.chains, merges(network)
    assert any(len(choice.kept) > 1 for choice in choices)
    for choice in choices:
        composed = lower(chain, choice).composed
        merged = folded(network.module, composed)
        assert merged.geometry == choice.geometry
        assert list(merged.carries) == [index for index in choice.kept if chain.layers[index - 1].shift]
        assert prove_block(LinearisedBlock(network.module, composed), merged).error <= 1e-10


def test_every_merged_network_is_the_linearised_one(one: tuple[Case, Network]) -> None:
    _, network = one
    for choice in merges(network):
        result = execute(network, [choice], [])
        assert prove_network(result.linearised, result.merged, examples(network.inputs, 3)).end_to_end <= 1e-5


def test_shifts_are_exact_at_the_borders_too() -> None:
    """By hand: padding once for both convolutions, the shift wherever the first one's result is."""
    torch.manual_seed(0)
    source = CASES["a shift through a kernel"].build().double()
    network = trace("net", source.float(), TWO)
    whole = Choice(Block(0, 0, 2), Kind.MERGE, None, (1, 2))
    merged = folded(network.module, lower(network.chains[0], whole).composed)
    x, t = (value.double() for value in examples(TWO, 2))
    a, b, s = (network.module.get_submodule(name).double() for name in "abs")
    shift = 100 * s(t)[:, :, None, None]
    inner = F.conv2d(F.pad(x, (2, 2, 2, 2)), a.weight, a.bias) + shift
    expected = F.conv2d(inner, b.weight, b.bias)
    torch.testing.assert_close(merged(x, shift), expected, rtol=1e-12, atol=1e-10)


def test_without_activations_the_inside_is_that_of_the_original() -> None:
    """Where no pixel sees padding, linearising removes the activation and nothing else: shifts are all there."""
    torch.manual_seed(0)
    linear = case(lambda m, x, t: m.b(m.a(x) + projected(m, t)), a=conv, b=conv, **S).build()
    network = trace("net", linear, TWO)
    (whole,) = [choice for choice in merges(network) if choice.kept == (1, 2)]
    x, t = examples(TWO, 2)
    merged = execute(network, [whole], []).merged
    with torch.no_grad():
        torch.testing.assert_close(merged(x, t)[..., 1:-1, 1:-1], linear(x, t)[..., 1:-1, 1:-1])


# Fits: shifts are inputs more of the least squares


def bare(channels: int = 4) -> nn.Conv2d:
    return conv(o=channels, padding=0)


@pytest.fixture(scope="module")
def linear() -> Network:
    """No activations and no padding: every block is one convolution with shifts."""
    torch.manual_seed(0)
    return trace(
        "linear",
        case(
            lambda m, x, t: m.c(m.b(m.a(x) + projected(m, t)) + projected(m, t.square())), a=bare, b=bare, c=bare, **S
        ).build(),
        TWO,
    )


def fits(network: Network) -> list[Choice]:
    return [item for item in choices_of(network, Limits(max_kernel=9)) if item.kind is Kind.FIT]


@pytest.mark.parametrize("strength", [Strength(), PLAIN], ids=["ours", "plain"])
def test_a_fit_of_what_is_linear_is_exact(linear: Network, strength: Strength) -> None:
    """On other data: that needs the shifts of all layers, each through a matrix of its own."""
    largest = {item.block: item for item in fits(linear)}
    assert [(block.start, block.end) for block in largest] == [(0, 2), (0, 3), (1, 3)]
    given = tuple(-value for value in examples(linear.inputs, 3))
    for item in largest.values():
        result = execute(linear, [item], [examples(linear.inputs, 512)], strength=strength)
        with torch.no_grad():
            torch.testing.assert_close(result.merged(*given), linear.module(*given), rtol=5e-3, atol=5e-3)
        assert result.fits[item.key].unexplained < 1e-6
        prove_network(result.linearised, result.merged, given)


def test_blocks_of_other_shifts_are_solved_apart_and_as_exactly(linear: Network) -> None:
    places = [(block, None) for block in {item.block: 0 for item in fits(linear)} if block.start == 0]
    frames = frames_of(linear, [(Block(0, 0, 1), None), *places], 9)
    assert [[shift.number for shift in frame.shifts] for frame in frames] == [[1], [1, 2], [1, 2]]
    found = accumulate(linear, frames, [examples(linear.inputs, 96)], memory=0)
    for place in places:
        *_, largest = fit_geometries(linear, place, 9)
        assert found[place].equations.solve(largest, of=found[place].index).unexplained < 1e-6


def test_a_fit_with_its_shift_misses_less_than_one_without(unet: Network) -> None:
    """The block is told the time; a convolution that is not cannot know it."""
    item = choice(unet, "2:0-2 fit 3x3 g1", ())
    batches = [examples(unet.inputs, 64)]
    (fitted,) = execute(unet, [item], batches, strength=PLAIN).fits.values()
    with mock.patch.object(lowering, "_shifts", lambda *_: iter(())):
        (without,) = execute(unet, [item], batches, strength=PLAIN).fits.values()
    assert fitted.unexplained < 0.95 * without.unexplained


def test_a_kept_layer_is_solved_again_beside_its_shift(unet: Network) -> None:
    plan = [choice(unet, "2:0-2 fit 1x1 g1", ())]
    plan += [item for item in choices_of(unet) if item.kind is Kind.KEEP and item.block.chain != 2]
    batches, given = [examples(unet.inputs, 48)], examples(unet.inputs, 16)
    ours, plain = (execute(unet, plan, batches, strength=strength) for strength in (Strength(), PLAIN))
    shifted = {item.key for item in plan if item.kind is Kind.KEEP and layer_of(unet, item).shift}
    assert {key for key in ours.refits if key in shifted} == {"4:0-1 keep 3x3 g1", "4:2-3 keep 3x3 g1"}
    with torch.no_grad():
        expected = unet.module(*given)
        missed = [float((result.merged(*given) - expected).square().mean()) for result in (ours, plain)]
    assert missed[0] < missed[1]


def layer_of(network: Network, item: Choice) -> Layer:
    return network.chains[item.block.chain].layers[item.block.start]


def test_what_is_shifted_through_a_matrix_keeps_its_channels() -> None:
    """So that every choice can be carried out in every width that it is offered in."""
    torch.manual_seed(0)
    network = trace("net", CASES["a shift around a skip"].build(), TWO)
    offered = [one for one in widths_of(network, (1.0, 0.5), 1) if one.group.tensors]
    sized = sized_choices(network, choices_of(network), offered, Setting(2))
    fewer = [(one, width) for one in sized for width in one.widths if width[1] < 4]
    assert {one.choice.kind for one, _ in fewer} >= {Kind.KEEP, Kind.FIT}
    assert any(one.choice.kind is Kind.FIT and lower(network.chains[0], one.choice).shifts for one in sized)
    for one, (number, channels) in fewer:
        kept = {network.channel_groups[number]: range(channels)}
        execute(network, [one.choice], [examples(TWO, 8)], strength=PLAIN, kept=kept)


# The whole U-Net


def test_chains_of_a_unet(unet: Network) -> None:
    found = [([layer.name for layer in c.layers], [(s.start, s.end, s.name) for s in c.skips]) for c in unet.chains]
    assert found == [
        (["first", "down.conv1", "down.conv2"], [(1, 3, None)]),
        (["downsample", "deep.conv1", "deep.conv2"], [(1, 3, "deep.shortcut")]),
        (["deeper.conv1", "deeper.conv2"], [(0, 2, None)]),
        (["upsample"], []),
        (["up.conv1", "up.conv2", "top.conv1", "top.conv2", "last"], [(0, 2, "up.shortcut"), (2, 4, None)]),
    ]
    for layer in unet.layers:
        assert (layer.shift is not None) == layer.name.endswith("conv1")
        assert (layer.pre_norm is not None) == (layer.name not in ("first", "downsample", "upsample"))
        assert layer.pre_norm is None or (layer.pre_norm.groups, layer.pre_norm.activation) == (2, "silu")


def test_plans_of_a_unet_agree_down_to_the_engine(unet: Network, random_plans: ModuleType) -> None:
    generator = random.Random(0)
    for number in range(10):
        plan = random_plans.random_plan(unet, generator)
        block, end_to_end, engine = random_plans.check_plan(unet, plan, export=number < 2)
        assert block <= 1e-10 and end_to_end <= 1e-4 and (engine is None or engine <= 1e-4)


def test_keeping_everything_changes_nothing(unet: Network) -> None:
    kept = [choice for choice in choices_of(unet) if choice.kind is Kind.KEEP]
    given = examples(unet.inputs, 2)
    with torch.no_grad():
        assert torch.equal(execute(unet, kept, []).merged(*given), unet.module(*given))


def choice(network: Network, key: str, kept: tuple[int, ...]) -> Choice:
    (found,) = [item for item in choices_of(network) if item.key == key and item.kept == kept]
    return found


def test_a_merge_keeps_its_front_drops_that_inside_and_moves_its_norm_behind(unet: Network) -> None:
    merge = choice(unet, "2:0-2 merge 5x5 g1", (1, 2))
    lowered, (first, second) = lower(unet.chains[2], merge), unet.chains[2].layers
    assert lowered.pre_norm == first.pre_norm and lowered.post_norm == second.pre_norm
    merged = execute(unet, [merge], []).merged
    module = merged.get_submodule("merged_2_0_2")
    assert isinstance(module, Normed) and isinstance(module.block, Shifted)
    source = unet.module.get_submodule("deeper.norm2")
    assert torch.equal(module.norm.weight, source.weight) and module.norm.weight is not source.weight
    names = set(dict(merged.named_modules()))
    assert "deeper.norm1" in names and not names & {"deeper.norm2", "deeper.conv1", "deeper.conv2"}


def test_of_an_emptied_block_its_skip_is_left(unet: Network) -> None:
    plain, projected_ = choice(unet, "2:0-2 identity", ()), choice(unet, "4:0-2 merge 1x1 g1", ())
    merged = execute(unet, [plain, projected_], []).merged
    names = set(dict(merged.named_modules()))
    assert not any(name.startswith(("deeper", "up.")) for name in names)
    conv_ = merged.get_submodule("merged_4_0_2")
    assert torch.equal(conv_.weight, unet.module.get_submodule("up.shortcut").weight)
    for item in (plain, projected_):
        assert lower(unet.chains[item.block.chain], item).pre_norm is None


def test_blocks_that_a_front_forbids(unet: Network) -> None:
    """From the input of a pre-norm, a skip may lead around the block, but not end inside of it."""
    blocks = {(item.block.start, item.block.end) for item in choices_of(unet) if item.block.chain == 4}
    assert (0, 2) in blocks and (2, 4) in blocks
    assert not blocks & {(0, 3), (0, 4), (0, 5), (2, 5)}


@pytest.mark.parametrize(
    ("key", "kept", "expected"),
    [
        (
            "2:0-1 keep 3x3 g1",
            (1,),
            ["conv 12>12 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias shift", "pass gn2 silu"],
        ),
        (
            "2:1-2 keep 3x3 g1",
            (2,),
            ["conv 12>12 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias add", "pass gn2 silu"],
        ),
        (
            "2:0-2 merge 5x5 g1",
            (1, 2),
            ["conv 12>12 k5x5 s1x1 p2,2,2,2 d1x1 g1 bias shift gn2 add", "pass gn2 silu"],
        ),
        (
            "2:0-2 fit 3x3 g1",
            (),
            ["conv 12>12 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias shift add", "pass gn2 silu"],
        ),
        ("2:1-2 identity", (), ["pass add"]),
        ("2:0-2 identity", (), []),
    ],
)
def test_what_choices_execute(unet: Network, key: str, kept: tuple[int, ...], expected: list[str]) -> None:
    costs = signatures(unet, choice(unet, key, kept), Setting(8))
    assert [cost.key.removeprefix("fp32 n8 12x4x4 ") for cost in costs] == expected
    assert [Signature.parse(cost.key) for cost in costs] == list(costs)
