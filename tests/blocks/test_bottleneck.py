"""Activations are offered at linear bottlenecks alone, and to such a choice the chain is one that has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from torch import nn

from trt_layermerge.blocks.bottleneck import addable, as_seen
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import Network

Make = Callable[..., Network]
OFFERED = Limits(bottleneck_activations=True)


def conv(i: int = 4, o: int = 4, k: int = 1, **kwargs: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


def inverted(channels: int = 4, out: int = 4, wide: int = 12) -> list[nn.Module]:
    """The convolutions of an inverted residual."""
    return [conv(channels, wide), conv(wide, wide, 3, groups=wide), conv(wide, out)]


@pytest.fixture(scope="module")
def network(make: Make) -> Network:
    """MobileNetV2 in small: a stem, an inverted residual without and two with a skip, and a last layer."""
    acts = {index: nn.ReLU6() for index in (1, 2, 3, 5, 6, 8, 9, 11)}
    return make(
        [conv(3, 4, 3), *inverted(4, 6), *inverted(6, 6), *inverted(6, 6), conv(6, 8)],
        {(4, 7): None, (7, 10): None},
        acts,
    )


def found(network: Network, key: str) -> Choice:
    (choice,) = [choice for choice in choices_of(network, OFFERED) if choice.key == key]
    return choice


def keys(network: Network, key: str) -> list[str]:
    choice = found(network, key)
    executed = signatures(network, choice, Setting(8))
    return [signature.key.removeprefix("fp32 n8 ") for signature in executed]


def test_what_was_offered_before_is_unchanged(network: Network) -> None:
    """The same choices in the same order, and beside them merges and fits that differ in their activation alone."""
    plain, all_ = choices_of(network), choices_of(network, OFFERED)
    added = [choice for choice in all_ if choice.activation is not None]
    assert tuple(choice for choice in all_ if choice.activation is None) == plain
    assert added and all(choice.kind in (Kind.MERGE, Kind.FIT) and not choice.emptied for choice in added)
    assert len({choice.key for choice in all_}) == len(all_)
    assert {choice.activation for choice in added} == {"relu6"}
    assert {(c.block, c.kind, c.geometry) for c in added} <= {(c.block, c.kind, c.geometry) for c in plain}


def test_where_they_are_offered(network: Network) -> None:
    """At each of the three bottlenecks, for blocks with an activation inside that hide no skip."""
    blocks = {choice.block for choice in choices_of(network, OFFERED) if choice.activation is not None}
    assert {block.end for block in blocks} == {4, 7, 10}
    assert {block.start for block in blocks if block.end == 7} == {0, 1, 2, 3, 4, 5}  # not the projection alone
    assert {block.start for block in blocks if block.end == 10} == {0, 1, 2, 3, 4, 7, 8}


@pytest.mark.parametrize(
    ("convs", "skips", "acts"),
    [
        pytest.param([*inverted(), conv()], {}, {}, id="no activation inside"),
        pytest.param(inverted(), {}, {1: nn.ReLU6()}, id="nothing behind"),
        pytest.param([*inverted(), conv()], {}, {1: nn.ReLU6(), 3: nn.ReLU6()}, id="it has one"),
        pytest.param([conv(), conv(), conv()], {}, {1: nn.ReLU6()}, id="not narrower"),
        pytest.param([*inverted(), conv()], {}, {1: nn.PReLU(), 2: nn.PReLU(12)}, id="weights of its own"),
    ],
)
def test_where_they_are_not(make: Make, convs: list[nn.Module], skips: dict, acts: dict) -> None:
    network = make(convs, skips, acts)
    assert choices_of(network, OFFERED) == choices_of(network)


def test_of_several_activations_the_last_one_without_weights_is_added(make: Make) -> None:
    network = make([*inverted(), conv()], {}, {1: nn.SiLU(), 2: nn.PReLU(12)})
    assert addable(network.chains[0], Block(0, 0, 3)) == "silu"


def test_skips_of_both_kinds_leave_no_sum_to_put_it_on(make: Make) -> None:
    """One that leads around the block, and one from inside of it, end in the same layer."""
    acts = {index: nn.ReLU6() for index in (1, 2, 3)}
    network = make([conv(), *inverted(), conv()], {(0, 4): None, (1, 4): None}, acts)
    (chain,) = network.chains
    assert addable(chain, Block(0, 0, 4)) is None
    assert addable(chain, Block(0, 1, 4)) == "relu6"


CONV = "6x16x16 conv 6>6 k{0}x{0} s1x1 p{1},{1},{1},{1} d1x1 g1 bias relu6"
ADD = "6x16x16 pass add"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("0:4-7 fit 3x3 g1 +relu6", [CONV.format(3, 1), ADD]),  # the skip stays beside the convolution
        ("0:4-7 merge 3x3 g1 +relu6", [CONV.format(3, 1), ADD]),
        ("0:5-7 fit 1x1 g1 +relu6", ["12x16x16 conv 12>6 k1x1 s1x1 p0,0,0,0 d1x1 g1 bias relu6", ADD]),
        ("0:4-10 fit 5x5 g1 +relu6", [CONV.format(5, 2)]),  # the skips start deeper inside, and are in the kernel
        ("0:1-4 fit 3x3 g1 +relu6", ["4x16x16 conv 4>6 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias relu6"]),
        ("0:4-7 fit 3x3 g1", [CONV.format(3, 1).removesuffix(" relu6")]),
    ],
)
def test_what_they_execute(network: Network, choice: str, expected: list[str]) -> None:
    assert keys(network, choice) == expected


def test_a_projection_around_the_block_is_executed(make: Make) -> None:
    network = make([*inverted(4, 6), conv(6, 6)], {(0, 3): conv(4, 6)}, {1: nn.ReLU(), 2: nn.ReLU()})
    assert [key.split(" d1x1")[0] for key in keys(network, "0:0-3 fit 3x3 g1 +relu")] == [
        "4x16x16 conv 4>6 k3x3 s1x1 p1,1,1,1", ADD, "4x16x16 conv 4>6 k1x1 s1x1 p0,0,0,0"
    ]  # fmt: skip


def test_the_chain_as_it_is_seen(network: Network) -> None:
    """Only the layer at the end differs, and the skips around the block."""
    (chain,) = network.chains
    for choice in choices_of(network, OFFERED):
        seen = as_seen(chain, choice.place)
        if choice.activation is None:
            assert seen is chain
            continue
        end, layer = choice.block.end, seen.layers[choice.block.end - 1]
        assert layer.activation == choice.activation and layer.act in [
            inner.act for inner in chain.layers[choice.block.start : end - 1]
        ]
        assert [one for one in seen.layers if one.index != end] == [one for one in chain.layers if one.index != end]
        for skip, before in zip(seen.skips, chain.skips, strict=True):
            assert skip == replace(before, late=before.end == end and before.start <= choice.block.start)
