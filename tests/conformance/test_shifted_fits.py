"""Fits of layers with shifts by a time step: these are inputs more of the least squares."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import nn

from tests.conformance.shifted_cases import CASES, TWO, S, case, choice, conv, projected
from trt_layermerge.blocks import lowering
from trt_layermerge.blocks.candidates import choices_of, fit_geometries
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.cost import Setting
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.blocks.sized_choices import sized_choices, widths_of
from trt_layermerge.importance.frames import accumulate, frames_of
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.reconstruction import PLAIN, Strength
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.chain import Layer
from trt_layermerge.network.inputs import examples
from trt_layermerge.network.network import Network, load_network, trace


@pytest.fixture(scope="module")
def unet() -> Network:
    return load_network(f"{Path(__file__).parent / 'unet.py'}:unet")


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
