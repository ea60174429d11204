"""Networks like DDPM's: norms before convolutions, shifts by a time step, several inputs; case by case, then as one."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional as F

from tests.conformance.shifted_cases import CASES, TWO, Case, S, case, choice, conv, projected, randomise
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.merging.linear import LinearisedBlock, folded
from trt_layermerge.merging.modules import Normed, Shifted
from trt_layermerge.merging.proof import prove_block, prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.inputs import examples
from trt_layermerge.network.network import Network, load_network, trace


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
    assert any(len(item.kept) > 1 for item in choices)
    for item in choices:
        composed = lower(chain, item).composed
        merged = folded(network.module, composed)
        assert merged.geometry == item.geometry
        assert list(merged.carries) == [index for index in item.kept if chain.layers[index - 1].shift]
        assert prove_block(LinearisedBlock(network.module, composed), merged).error <= 1e-10


def test_every_merged_network_is_the_linearised_one(one: tuple[Case, Network]) -> None:
    _, network = one
    for item in merges(network):
        result = execute(network, [item], [])
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
