"""A linearised block computes what its merged convolution does, for every choice of what to keep."""

from __future__ import annotations

from itertools import chain as joined
from itertools import combinations
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trt_layermerge.blocks.candidates import blocks_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.merging import linear
from trt_layermerge.merging.linear import LinearisedBlock, called, folded


def kept_sets(chain, block):
    """All sets of layers that may be kept."""
    layers = range(block.start + 1, block.end + 1)
    fixed = {index for index in layers if not chain.layers[index - 1].geometry.keeps_shape}
    free = [index for index in layers if index not in fixed]
    return [fixed | set(some) for some in joined.from_iterable(combinations(free, n) for n in range(len(free) + 1))]


def composed(chain, block, kept):
    return lower(chain, Choice(block, Kind.MERGE, None, tuple(kept))).composed


@settings(max_examples=30)
@given(data=st.data())
def test_linearised_block_is_the_merged_convolution(networks, data):
    network = data.draw(networks)
    chain = data.draw(st.sampled_from(network.chains))
    block = data.draw(st.sampled_from(list(blocks_of(chain, 6))))
    for kept in kept_sets(chain, block)[-16:]:
        merged = folded(network.module, composed(chain, block, kept))
        linear = LinearisedBlock(network.module, composed(chain, block, kept)).double().eval()
        x = torch.randn(2, *chain.shape(block.start), dtype=torch.float64)
        actual, expected = linear(x), merged(x)
        assert actual.shape == expected.shape
        assert actual.shape[1:] == chain.shape(block.end)
        assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max().clamp_min(1)


@settings(max_examples=20)
@given(data=st.data())
def test_a_map_may_be_made_of_a_few_inputs_at_a_time(networks, data):
    """What the taps of one input are does not depend on the others."""
    network = data.draw(networks)
    chain = data.draw(st.sampled_from(network.chains))
    block = data.draw(st.sampled_from(list(blocks_of(chain, 6))))
    one = composed(chain, block, kept_sets(chain, block)[-1])
    whole = folded(network.module, one)
    with mock.patch.object(linear, "MOST_NUMBERS", data.draw(st.sampled_from([1, 3000]))):
        parts = folded(network.module, one)
    assert parts.geometry == whole.geometry
    torch.testing.assert_close(parts.weight, whole.weight, rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.bias, whole.bias)


@given(data=st.data())
def test_one_layer_is_itself(networks, data):
    """With its own padding and its norm, and without its activation."""
    network = data.draw(networks)
    chain = data.draw(st.sampled_from(network.chains))
    layer = data.draw(st.sampled_from(chain.layers))
    block = Block(chain.index, layer.index - 1, layer.index)
    if any(skip.inside(block.start, block.end) for skip in chain.skips):
        return
    conv, norm = (nn.Identity() if node is None else called(network.module, node) for node in (layer.conv, layer.norm))
    x = torch.randn(2, *layer.input_shape)
    with torch.no_grad():
        expected = norm(conv(x))
        actual = LinearisedBlock(network.module, composed(chain, block, {layer.index}))(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_padding_is_hoisted_to_the_input(quick):
    """Margins of a strided and a dilated layer, by hand."""
    module = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(1, 1, (1, 5), padding=(0, 4), dilation=(1, 2))
    )
    network = quick(module, (1, 9, 12))
    block = LinearisedBlock(network.module, composed(network.chains[0], Block(0, 0, 2), (1, 2)))
    assert block.margins == {2: (0, 0, 0, 0), 1: (0, 4, 0, 4), 0: (1, 9, 1, 9)}
    assert all(part.padding == (0, 0) for part in block.modules() if isinstance(part, nn.Conv2d))


def test_original_is_copied(quick):
    network = quick(nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)), (1, 5, 5))
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    block = LinearisedBlock(network.module, composed(network.chains[0], Block(0, 0, 2), (1, 2)))
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in network.module.state_dict().items())
    assert {part.padding for part in network.module.modules() if isinstance(part, nn.Conv2d)} == {(1, 1)}


class NestedProjection(nn.Module):
    """Inside its branch the width changes, and there is a skip with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 3, padding=1)
        self.second, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.project, self.act = nn.Conv2d(2, 3, 1), nn.ReLU()

    def forward(self, x):
        y = self.act(self.first(x))
        return x + self.last(self.project(y) + self.second(self.inner(y)))


def test_nothing_of_a_dropped_branch_is_left(quick):
    network = quick(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), NestedProjection()), (4, 6, 6))
    (chain,) = [chain for chain in network.chains if len(chain.skips) == 2]
    whole = next(skip for skip in chain.skips if not skip.units)
    block = LinearisedBlock(network.module, composed(chain, Block(chain.index, whole.start, whole.end), ()))
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)
    assert not list(block.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_is_done_in_the_type_asked_for(quick, dtype):
    network = quick(nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3)), (1, 7, 7))
    whole = composed(network.chains[0], Block(0, 0, 2), (1, 2))
    assert folded(network.module, whole, dtype).weight.dtype == dtype


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 5), (3, 2)])
def test_kernels_on_small_tensors_lose_only_idle_taps(quick, size):
    torch.manual_seed(0)
    convs = [
        nn.Conv2d(3, 3, 3, padding=1),
        nn.Conv2d(3, 3, 5, padding=2),
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Conv2d(4, 4, 3, 1, 1),
    ]
    network = quick(nn.Sequential(*joined.from_iterable((conv, nn.ReLU()) for conv in convs)), (3, *size))
    (chain,) = network.chains
    for block in blocks_of(chain, 4):
        for kept in kept_sets(chain, block):
            merged = folded(network.module, composed(chain, block, kept))
            linear = LinearisedBlock(network.module, composed(chain, block, kept)).double().eval()
            x = torch.randn(2, *chain.shape(block.start), dtype=torch.float64)
            torch.testing.assert_close(linear(x), merged(x), atol=1e-12, rtol=1e-12)
            assert all(k <= max(2 * s - 1, 1) for k, s in zip(merged.geometry.kernel, x.shape[2:], strict=True))
