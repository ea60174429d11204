"""Fits behind the first layer of a block: where they are offered, what they leave, and what that costs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.blocks.behind import layer_in_front
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.blocks.narrowed_shapes import groups_of
from trt_layermerge.network.network import trace

SETTING = Setting(8)


def conv(i=4, o=4, k=3, **kwargs):
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


def behind(network, max_layers=12):
    limits = Limits(max_layers=max_layers, two_convolutions=True)
    return [choice for choice in choices_of(network, limits) if choice.behind is not None]


@pytest.fixture(scope="module")
def two_blocks(make):
    """A stem and two branches of two layers, the second with a projection and a stride."""
    convs = [conv(), conv(), conv(), conv(4, 8, stride=2), conv(8, 8)]
    skips = {(1, 3): None, (3, 5): conv(4, 8, 1, stride=2)}
    return make(convs, skips, {index: nn.ReLU() for index in range(1, 6)})


class Wide(nn.Module):
    """``join(cat(left(h), right(h))) + x`` with h what the first layer makes of x, and a layer behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.act = conv(3, 4), conv(4, 8), nn.ReLU()
        self.left, self.right, self.join, self.last = conv(8, 4, 1), conv(8, 4), conv(8, 4, 1), conv(4, 6, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        h = self.act(self.first(x))
        return self.act(self.last(self.join(torch.cat([self.left(h), self.right(h)], 1)) + x))


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    return trace("wide", Wide().eval(), (3, 16, 16))


def test_a_fit_is_offered_behind_a_layer_that_a_skip_leads_past(two_blocks):
    (found,) = behind(two_blocks)
    assert (found.key, found.kind) == ("0:1-5 fit 3x3 g1 behind 0:2", Kind.FIT)
    assert behind(two_blocks, max_layers=3) == []
    assert found not in choices_of(two_blocks), "they are there on request"


@pytest.mark.parametrize(
    ("skips", "acts"),
    [
        ({}, range(1, 5)),  # the first layer may be kept, and the others fitted
        ({(0, 4): None}, range(1, 5)),  # the others may be fitted beside the skip
        ({(0, 2): None, (2, 4): None}, (2, 4)),  # nothing stands between the two convolutions
        ({(1, 3): None}, (1, 3, 4)),
    ],
)
def test_none_is_offered_that_neighbours_are_as_good_as(make, skips, acts):
    network = make([conv() for _ in range(4)], skips, {index: nn.ReLU() for index in acts})
    assert behind(network) == []


def test_it_reads_what_the_first_layer_makes_and_drops_the_skip_past_that(two_blocks):
    (choice,), (chain,) = behind(two_blocks), two_blocks.chains
    lowered = lowered_in(two_blocks, choice)
    assert (lowered.reads, lowered.writes, lowered.activation) == (chain.tensor(2), chain.tensor(5), "relu")
    assert lowered.skips == lowered.late_skips == ()
    assert [skip.start for skip in lowered.composed.skips] == [3], "the second branch is whole"


def test_a_skip_around_the_whole_block_stays_beside_it(make):
    skips = {(0, 2): None, (0, 4): None}
    network = make([conv() for _ in range(4)], skips, {index: nn.ReLU() for index in range(1, 5)})
    beside = {choice.block.end: lowered_in(network, choice).skips for choice in behind(network)}
    assert {end: [skip.end for skip in skips] for end, skips in beside.items()} == {3: [], 4: [4]}


def test_it_costs_the_layer_and_the_convolution(two_blocks):
    (choice,) = behind(two_blocks)
    front = layer_in_front(two_blocks, choice)
    assert front in choices_of(two_blocks)
    kept, fitted = signatures(two_blocks, choice, SETTING)
    assert (kept,) == signatures(two_blocks, front, SETTING)
    assert fitted.key == "fp32 n8 4x16x16 conv 4>8 k3x3 s2x2 p1,1,1,1 d1x1 g1 bias relu"


def test_of_a_region_it_is_offered_where_a_branch_joins_before_the_end(wide):
    found = {choice.key: choice for choice in behind(wide)}
    (choice,) = found.values()
    region = wide.regions[choice.block.region]
    assert (region.input, region.activation) == (wide.chains[0].tensor(1), "relu")
    kept, fitted = signatures(wide, choice, SETTING)
    assert kept.key == "fp32 n8 4x16x16 conv 4>8 k3x3 s1x1 p1,1,1,1 d1x1 g1 bias relu"
    assert fitted.key == "fp32 n8 8x16x16 conv 8>6 k3x3 s2x2 p1,1,1,1 d1x1 g1 bias relu"


def test_it_touches_what_the_layer_in_front_makes(wide):
    """So that this may be narrower, too."""
    (choice,) = behind(wide)
    whole = Choice(choice.block, Kind.FIT, choice.geometry)
    made = wide.chains[choice.block.chain].tensor(choice.behind)
    more = set(groups_of(wide, choice)) - set(groups_of(wide, whole))
    assert [made in group.nodes for group in more] == [True]


def test_its_place_is_not_that_of_other_fits(two_blocks):
    (choice,) = behind(two_blocks)
    assert choice.place not in {one.place for one in choices_of(two_blocks) if one.behind is None}
    assert choice.place.behind == 2 and choice.block == Block(0, 1, 5)
