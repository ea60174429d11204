"""What moves channels is known for what it does, however it is written; what moves pixels or samples is not linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import Net, conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.merging.proof import prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.network import Network, trace


def merges(function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> tuple[Network, dict[str, Choice]]:
    """The merges of regions that begin at the first activation, by their ends."""
    torch.manual_seed(0)
    network = trace("net", Net(function, first=conv(), **modules), (4, 8, 8))
    regions = network.regions
    found = {
        regions[choice.block.region].output: choice
        for choice in choices_of(network, Limits())
        if choice.kind is Kind.MERGE and choice.block.region is not None
        if regions[choice.block.region].input == "relu"
    }
    return network, found


def executed(network: Network, choice: Choice) -> nn.Module:
    """The merged network, proved."""
    made, x = execute(network, [choice], []), torch.randn(2, *network.input_shape)
    assert prove_network(made.linearised, made.merged, x, made.proofs).blocks
    return made.merged


def split(m: Any, y: Tensor) -> list[Tensor]:
    return list(y.split(2, 1))


def halves(m: Any, y: Tensor) -> list[Tensor]:
    return [y[:, :2], y[:, 2:]]


def unbound(m: Any, y: Tensor) -> list[Tensor]:
    return list(y.unflatten(1, (2, 2)).unbind(1))


@pytest.mark.parametrize("parts", [split, halves, unbound])
def test_a_depthwise_convolution_for_each_part_is_one_of_them_all(parts: Callable[[Any, Tensor], list[Tensor]]) -> None:
    """As MixNet has it: nothing has to be taken away, so that the merged network computes the original."""

    def function(m: Any, x: Tensor) -> Tensor:
        one, other = parts(m, F.relu(m.first(x)))
        return m.last(F.relu(torch.cat([m.small(one), m.large(other)], 1)))

    network, found = merges(function, small=conv(2, 2, 3, groups=2), large=conv(2, 2, 5, groups=2), last=conv())
    geometry = found["cat_default"].geometry
    assert geometry is not None and (geometry.kernel, geometry.groups) == ((5, 5), 4)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(executed(network, found["cat_default"])(x), network.module(x))


SHUFFLES: dict[str, Callable[[Tensor], Tensor]] = {
    "shuffle": lambda y: y.reshape(y.shape[0], 2, 2, 8, 8).transpose(1, 2).reshape(y.shape[0], 4, 8, 8),
    "torch's own": lambda y: F.channel_shuffle(y, 2),
    "flip": lambda y: y.flip(1),
    "roll": lambda y: y.roll(1, 1),
    "twice": lambda y: torch.cat([y, y], 1)[:, 2:6],
}


@pytest.mark.parametrize("shuffle", SHUFFLES.values(), ids=SHUFFLES.keys())
def test_a_shuffle_between_convolutions_is_part_of_their_merge(shuffle: Callable[[Tensor], Tensor]) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return m.b(shuffle(m.a(F.relu(m.first(x)))))

    network, found = merges(function, a=conv(k=1), b=conv(4, 4, 3, padding=0))
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(executed(network, found["b"])(x), network.module(x))


def test_a_convolution_over_a_concatenation_is_a_sum_of_convolutions() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.first(x))
        z = torch.cat([m.a(y), F.relu(m.norm(m.b(y))), F.avg_pool2d(y, 3, 1, 1)], 1)
        return m.d(z + torch.cat([y, m.e(y)], 1)[:, :11])

    modules = {"a": conv(4, 3, 1), "b": conv(4, 4, 5), "norm": nn.BatchNorm2d(4), "d": conv(11, 6, 3, stride=2)}
    network, found = merges(function, **modules, e=conv(4, 8, 3))
    geometry = found["d"].geometry
    assert geometry is not None and (geometry.kernel, geometry.stride) == ((7, 7), (2, 2))
    executed(network, found["d"])


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "max pooling": lambda y: F.max_pool2d(y, 3, 1, 1),
    "a flipped image": lambda y: y.flip(3),
    "rows and columns": lambda y: y.transpose(2, 3),
    "moved pixels": lambda y: y.roll(1, 3),
    "a gate": lambda y: y * y.mean((2, 3), keepdim=True),
    "pixels of channels": lambda y: F.pixel_shuffle(F.pixel_unshuffle(y, 2).flip(1), 2),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_what_moves_pixels_or_multiplies_is_fitted_alone(other: Callable[[Tensor], Tensor]) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return m.b(other(m.a(F.relu(m.first(x)))))

    network, found = merges(function, a=conv(), b=conv())
    assert network.regions and "b" not in found
