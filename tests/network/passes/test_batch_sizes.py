"""What reshapes to the size of its batch is a part by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.network.written import conv, found
from trt_layermerge.network.network import Network


def shuffled(m: Any, x: Tensor) -> Tensor:
    size, *_ = x.shape
    y = m.a(x)
    return m.b(y.reshape(size, 2, 2, 8, 8).transpose(1, 2).reshape(size, 4, 8, 8)) + x


def framed(m: Any, x: Tensor) -> Tensor:
    size, *_ = x.shape
    return m.b(m.a(x.reshape(size * 4, 1, 8, 8)).reshape(size, 16, 8, 8))


def assert_same(network: Network) -> None:
    assert network.source is not None
    for batch in (1, 3):
        x = torch.randn(batch, 4, 8, 8)
        torch.testing.assert_close(network.module(x), network.source(x))


def test_a_reshape_does_not_ask_the_networks_input_for_its_size() -> None:
    network = found(shuffled, a=conv(), b=conv())
    assert not any(node.target is torch.ops.aten.sym_size.int for node in network.module.graph.nodes)
    assert any((region.input, region.output) == ("x", "b") for region in network.regions)
    assert_same(network)


def test_frames_keep_their_place() -> None:
    network = found(framed, a=conv(1), b=conv(16))
    assert [chain.multiple for chain in network.chains] == [4, 1]
    assert_same(network)
