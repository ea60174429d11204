"""Shapes of narrowed networks: what chains say is what is found in the network that was really narrowed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.merging.conftest import SHAPE, random_modules
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.narrowed_shapes import (
    ends_alike,
    groups_of,
    narrowed_choice,
    narrowed_geometry,
    narrowed_shapes,
)
from trt_layermerge.blocks.sized_choices import sized_choices, widths_of
from trt_layermerge.merging.narrowing import narrow
from trt_layermerge.network.discover import find_chains
from trt_layermerge.network.geometry import Geometry

SETTING = Setting(2)


@pytest.fixture(scope="module")
def random_networks(quick):
    return random_modules().map(lambda module: quick(module, SHAPE))


@settings(max_examples=30)
@given(data=st.data())
def test_chains_are_those_of_the_narrowed_network(random_networks, data):
    network = data.draw(random_networks)
    widths = {group.index: data.draw(st.integers(1, group.channels)) for group in network.channel_groups}
    shaped = narrowed_shapes(network, widths)
    kept = {group: range(widths[group.index]) for group in network.channel_groups}
    module = narrow(network.module, kept)
    found, _ = find_chains(module)
    assert [_numbers(chain) for chain in shaped.chains] == [_numbers(chain) for chain in found]


def _numbers(chain):
    layers = [(layer.geometry, layer.input_shape, layer.output_shape) for layer in chain.layers]
    return layers, [(skip.start, skip.end, skip.geometry) for skip in chain.skips]


@settings(max_examples=20)
@given(data=st.data())
def test_a_choice_costs_what_it_costs_in_the_network_with_all_its_widths(random_networks, data):
    """What lies outside of a block has no say."""
    network = data.draw(random_networks)
    offered = widths_of(network, (0.5,), 1)
    full = {one.group.index: one.channels[0] for one in offered}
    for sized in sized_choices(network, choices_of(network), offered, SETTING):
        others = {number: data.draw(st.sampled_from([full[number], full[number] // 2])) for number in full}
        shapes = narrowed_shapes(network, others | dict(sized.widths))
        executed = narrowed_choice(network, sized.choice, shapes)
        assert signatures(shapes, executed, SETTING) == sized.signatures


@settings(max_examples=20)
@given(data=st.data())
def test_every_choice_is_there_once_for_each_combination(random_networks, data):
    network = data.draw(random_networks)
    choices, offered = choices_of(network), widths_of(network, (0.5, 0.25), 1)
    numbers = {one.group.index: len(one.channels) for one in offered}
    sized = sized_choices(network, choices, offered, SETTING)
    for choice in choices:
        variants = [one for one in sized if one.choice == choice]
        touched = groups_of(network, choice)
        expected = 1
        for group in touched:
            expected *= numbers.get(group.index, 1)
        if (choice.kind is Kind.IDENTITY or choice.dropped) and not (len(touched) == 1 and ends_alike(network, choice)):
            expected = 1
        assert len(variants) == len({one.widths for one in variants}) == expected


def test_widths_are_multiples_below_all_channels(quick):
    torch.manual_seed(0)
    network = quick(
        nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1)), (3, 9, 9)
    )
    first, *rest = widths_of(network, (1.0, 0.75, 0.5, 0.3, 0.01), 8)
    assert (first.channels, rest) == ((40, 32, 24, 16, 8), [])  # of 6 channels nothing is left out: 8 are more


def test_a_convolution_in_groups_of_channels_cannot_be_narrowed():
    grouped = Geometry(8, 8, (3, 3), groups=2)
    assert narrowed_geometry(grouped, 8, 8) == grouped
    assert narrowed_geometry(replace(grouped, groups=8), 5, 5) == Geometry(5, 5, (3, 3), groups=5)
    for inputs, outputs in ((4, 4), (8, 4)):
        with pytest.raises(ValueError, match="cannot have"):
            narrowed_geometry(grouped, inputs, outputs)
