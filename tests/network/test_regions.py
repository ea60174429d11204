"""Regions nest as branches do, stand in a row on the path of all chains, and see what their convolutions see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import Net, conv
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.network import Network, trace
from trt_layermerge.network.region import ChainPosition, Region


def gated(m: Any, x: Tensor) -> Tensor:
    y = F.relu(m.b(F.relu(m.a(x))))
    return m.d(y * torch.sigmoid(m.g(F.adaptive_avg_pool2d(y, 1)))) + x


def inception(m: Any, x: Tensor) -> Tensor:
    x = F.relu(m.a(x))
    joined = torch.cat([F.relu(m.b(x)), m.d(F.relu(m.c(x))), m.e(F.max_pool2d(x, 3, 1, 1))], 1)
    return F.max_pool2d(m.f(F.max_pool2d(joined, 2)), 2)


def by_turns(m: Any, x: Tensor) -> Tensor:
    """Two branches with gates inside, executed by turns."""
    one, two = m.a(x), m.b(x)
    one, two = one * torch.sigmoid(m.c(one)), two * torch.sigmoid(m.d(two))
    return torch.cat([m.e(one), m.f(two)], 1)


def lane(m: Any, x: Tensor) -> Tensor:
    return m.b(F.max_pool2d(F.relu(m.a(x)), 2))


NETWORKS: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, nn.Module]]] = {
    "gated": (gated, {"a": conv(), "b": conv(), "d": conv(k=1), "g": conv(k=1)}),
    "inception": (
        inception,
        {"a": conv(), "b": conv(k=1), "c": conv(k=1), "d": conv(k=5), "e": conv(k=1), "f": conv(12)},
    ),
    "by turns": (by_turns, {name: conv(k=1) for name in "abcdef"}),
    "a pooling": (lane, {"a": conv(), "b": conv()}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    function, modules = NETWORKS[request.param]
    torch.manual_seed(0)
    return trace(request.param, Net(function, **modules), (4, 16, 16))


def place(chains: tuple[Chain, ...], position: ChainPosition) -> int:
    return sum(map(len, chains[: position.chain])) + position.tensor


def test_the_layers_of_a_region_stand_in_a_row(network: Network) -> None:
    assert network.regions
    for region in network.regions:
        first, last = place(network.chains, region.start), place(network.chains, region.end)
        numbers = [place(network.chains, ChainPosition(*layer)) for layer in region.layers]
        assert numbers == list(range(first + 1, last + 1)), region


def test_regions_nest_or_follow_one_another_or_overlap_in_one_trail(network: Network) -> None:
    """As sets of layers two regions cross only if they share an end of the same path: no branch is cut in half."""
    for one in network.regions:
        inside = {tuple(layer) for layer in one.layers}
        for chain in network.chains:
            numbers = [layer.index for layer in chain.layers if (chain.index, layer.index) in inside]
            assert numbers in ([], list(range(numbers[0], numbers[-1] + 1)) if numbers else [])


def test_nothing_outside_reads_the_inside(network: Network) -> None:
    """What lies behind a region can be computed from its output and what was known before its input."""
    for region in network.regions:
        inside = up_to(network.module, [region.output])
        names = [node.name for node in inside.graph.nodes]
        assert region.input in names and region.before_activation in names


def test_an_output_pixel_depends_on_what_the_geometry_sees_and_no_more() -> None:
    """By gradients: where the network has no gate, the largest convolution covers all that matters."""
    for name in ("inception", "a pooling"):
        function, modules = NETWORKS[name]
        network = trace(name, Net(function, **modules), (4, 16, 16))
        for region in network.regions:
            if max(region.geometry.kernel) < 15:
                assert_seen(network, region)


def assert_seen(network: Network, region: Region) -> None:
    head = up_to(network.module, [region.input, region.output])
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    start, end = head(x)
    start.retain_grad()
    row, column = end.shape[2] // 2, end.shape[3] // 2
    (gradient,) = torch.autograd.grad(end[0, :, row, column].sum(), start)
    geometry = region.geometry
    for axis, at in ((0, row), (1, column)):
        touched = gradient[0].abs().sum((0, 2 - axis)).nonzero().flatten()
        first = at * geometry.stride[axis] - geometry.padding[axis]
        assert first <= touched.min() and touched.max() < first + geometry.kernel[axis], region


def test_a_branch_with_a_gate_is_replaced_with_it() -> None:
    function, modules = NETWORKS["gated"]
    network = trace("gated", Net(function, **modules), (4, 16, 16))
    ends = {(region.input, region.output) for region in network.regions}
    assert ("x", "add") in ends, "the whole"
    assert ("x", "d") in ends, "its branch"
    assert {region.convolutions for region in network.regions if region.output == "add"} == {4}


def test_a_plain_chain_has_no_region() -> None:
    network = trace("plain", Net(lambda m, x: m.b(F.relu(m.a(x))) + x, a=conv(), b=conv()), (4, 8, 8))
    assert network.regions == () and network.gaps == ()
