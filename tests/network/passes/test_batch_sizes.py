"""What reshapes to the size of its batch is a part by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

from tests.network.written import conv, found
from trt_layermerge.delivery.export import export_onnx
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


DIVIDED: dict[str, Callable[[Tensor], Any]] = {
    "chunks": lambda y: y.chunk(3),
    "of a size": lambda y: y.split(y.shape[0] // 3),
    "of sizes": lambda y: y.split([y.shape[0] // 3] * 3, -4),
}


@pytest.mark.parametrize("divide", DIVIDED.values(), ids=DIVIDED.keys())
def test_what_takes_a_batch_apart_does_not_fix_it(divide: Callable[[Tensor], Any], tmp_path: Path) -> None:
    def pyramid(m: Any, x: Tensor) -> Tensor:
        one, two, _ = divide(m.b(m.a(torch.cat([x, x.flip(-1), x + 1]))))
        return one - 2 * two

    network = found(pyramid, a=conv(), b=conv())
    assert [chain.multiple for chain in network.chains] == [3]
    assert_same(network)
    export_onnx(network.module, network.inputs, tmp_path / "pyramid.onnx")
    (image,) = onnx.load(tmp_path / "pyramid.onnx").graph.input
    assert image.type.tensor_type.shape.dim[0].dim_param == "batch"
