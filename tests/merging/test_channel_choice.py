"""What stays is what consumers need, and they lose as little as any weights let them lose."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.merging.conftest import anew
from tests.network.written import Net, conv
from trt_layermerge.errors import TaskError
from trt_layermerge.merging.channel_choice import Reading, Selection, corrected, order_of
from trt_layermerge.merging.narrowing import masked, narrow
from trt_layermerge.merging.proof import relative_error
from trt_layermerge.merging.readings import readings_of, write_corrected
from trt_layermerge.network.network import Network, trace

SHAPE = (4, 8, 8)


@st.composite
def readings(draw: st.DrawFn, channels: int = 6) -> Reading:
    seed, each, outputs = draw(st.integers(0, 2**16)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(60, channels * each, dtype=torch.float64, generator=generator)
    patches = patches @ torch.randn(channels * each, channels * each, dtype=torch.float64, generator=generator)
    weight = torch.randn(channels, each, outputs, dtype=torch.float64, generator=generator)
    scale = torch.rand(outputs, dtype=torch.float64, generator=generator)
    return Reading(torch.cov(patches.T, correction=0), patches.mean(0), weight, scale)


def loss(reading: Reading, weight: Tensor) -> float:
    """Mean square, behind the norm, of what is lost with other weights and the best bias."""
    change = ((weight - reading.weight) * reading.scale).flatten(0, 1)
    return float((change * (reading.gram @ change)).sum())


@given(reading=readings(), kept=st.sets(st.integers(0, 5), min_size=1))
def test_a_correction_is_the_least_squares_solution(reading: Reading, kept: set[int]) -> None:
    weight, shift = corrected(reading, sorted(kept), ridge=1e-12)
    rows = torch.cat([torch.arange(reading.weight.shape[1]) + c * reading.weight.shape[1] for c in sorted(kept)])
    target = reading.weight.flatten(0, 1)
    expected = torch.zeros_like(target)
    expected[rows] = torch.linalg.lstsq(reading.gram[rows][:, rows], reading.gram[rows] @ target).solution
    torch.testing.assert_close(weight.flatten(0, 1), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(shift, reading.means @ (target - expected), rtol=1e-4, atol=1e-6)


@given(reading=readings())
def test_gains_are_what_is_no_longer_lost(reading: Reading) -> None:
    """With each channel that could come next, also when some have."""
    run, kept = Selection(reading, 1e-12), list[int]()
    for _ in range(5):
        before, gains = lost([reading], kept), run.gains()
        for channel in sorted(set(range(6)) - set(kept)):
            gain = before - lost([reading], [*kept, channel])
            assert gain == pytest.approx(float(gains[channel]), rel=1e-4, abs=1e-6)
        kept.append(int(gains.argmax()))
        run.add(kept[-1])


@given(first=readings(), second=readings())
def test_an_order_has_every_channel_once_and_starts_with_what_is_needed(first: Reading, second: Reading) -> None:
    order = order_of([first, second], ridge=1e-12)
    assert sorted(order) == list(range(6))
    for count in range(3):
        least = min(lost([first, second], [*order[:count], channel]) for channel in order[count:])
        assert lost([first, second], order[: count + 1]) == pytest.approx(least, rel=1e-3, abs=1e-6)


def lost(given: list[Reading], kept: Sequence[int]) -> float:
    return sum(loss(reading, corrected(reading, kept, 1e-12)[0]) / reading.variance for reading in given)


def test_copies_go_first(quick: Any) -> None:
    """Three of six channels can be made from the others, so that nothing is lost without them."""
    torch.manual_seed(0)
    source = nn.Sequential(conv(4, 6), nn.ReLU(), conv(6, 5))
    with torch.no_grad():
        source[0].weight[3:] = source[0].weight[:3] * 2
        source[0].bias[3:] = source[0].bias[:3] * 2
    network = quick(source, SHAPE)
    narrowed, kept = narrowed_to(network, 3, [torch.randn(40, *SHAPE)])
    assert {channel % 3 for channel in kept} == {0, 1, 2}
    x = torch.randn(2, *SHAPE)
    with torch.no_grad():
        assert relative_error(narrowed(x), network.module(x)) < 1e-3


def narrowed_to(network: Network, count: int, batches: list[Tensor]) -> tuple[Any, list[int]]:
    """The first group of a network with so many channels, its consumers corrected."""
    ((group, found),) = readings_of(network.module, network.channel_groups[:1], batches)
    kept, wide = sorted(order_of(list(found.values()))[:count]), copy.deepcopy(network.module)
    for name, reading in found.items():
        write_corrected(wide, name, reading, kept)
    with torch.no_grad():
        assert relative_error(wide(batches[0]), masked(wide, {group: kept})(batches[0])) < 1e-5, "it reads what goes"
    return narrow(wide, {group: kept}), kept


def flat(m: Any, x: Tensor) -> Tensor:
    return m.l(F.max_pool2d(F.relu(m.a(x)), 4).flatten(1))


def dilated(m: Any, x: Tensor) -> Tensor:
    return m.n(m.b(F.relu(m.a(x))))


@pytest.mark.parametrize(
    ("function", "modules"),
    [
        (flat, {"a": conv(4, 6), "l": nn.Linear(24, 5)}),
        (dilated, {"a": conv(4, 6), "b": conv(6, 5, bias=False, dilation=2), "n": nn.BatchNorm2d(5)}),
        (dilated, {"a": conv(4, 6), "b": conv(6, 5, k=5), "n": nn.BatchNorm2d(5)}),
        (dilated, {"a": conv(4, 6), "b": conv(6, 5, bias=False), "n": nn.Identity()}),
    ],
    ids=["flat", "dilated", "norm", "bias"],
)
def test_a_correction_brings_a_network_nearer(function: Any, modules: dict[str, nn.Module]) -> None:
    network, batches = trace("net", anew(Net(function, **modules)), SHAPE), [torch.randn(60, *SHAPE)]
    narrowed, kept = narrowed_to(network, 4, batches)
    plain = narrow(network.module, {network.channel_groups[0]: kept})
    for x in (batches[0], torch.randn(20, *SHAPE)):
        with torch.no_grad():
            wanted = network.module(x)
            assert (narrowed(x) - wanted).square().sum() < 0.9 * (plain(x) - wanted).square().sum()


def test_no_data_is_an_error(quick: Any) -> None:
    network = quick(nn.Sequential(conv(), nn.ReLU(), conv()), SHAPE)
    with pytest.raises(TaskError, match="no calibration data"):
        list(readings_of(network.module, network.channel_groups, []))
