"""What cannot be written as ONNX is found without writing the network, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.onnx_sketch import unwritable
from trt_layermerge.errors import ModelError
from trt_layermerge.network.network import trace


class Ordinary(nn.Module):
    """Operators of several results, that write in place, read lists, numbers and sizes, or make complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.act, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.PReLU(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        some, others = x.chunk(2, 1)
        x = torch.cat([others, some], 1)
        x = x.add_(self.act(self.second(x)))
        x = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
        x = x.reshape(x.shape[0], 8, -1)
        return self.head(x.topk(3).values.mean(2)).softmax(1)


class Odd(Ordinary):
    """With two operators that ONNX does not have, one of them twice."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.special.bessel_j0(self.first(x))
        return super().forward(torch.special.bessel_j0(x)[:, :3]) + torch.special.bessel_y1(x.mean((2, 3)))[:, :4]


def test_what_can_be_written_is(tmp_path: Path) -> None:
    network = trace("net", Ordinary().eval(), (3, 8, 8))
    assert unwritable(network) == ()
    export_onnx(network.module, network.inputs, tmp_path / "net.onnx")


def test_every_operator_that_cannot_be_written_is_named_once(tmp_path: Path) -> None:
    network = trace("net", Odd().eval(), (3, 8, 8))
    found = unwritable(network)
    assert [one.operator for one in found] == ["aten.special_bessel_j0.default", "aten.special_bessel_y1.default"]
    assert {one.name for one in found} < {node.name for node in network.module.graph.nodes}
    with pytest.raises(ModelError) as raised:
        export_onnx(network.module, network.inputs, tmp_path / "net.onnx")
    assert "No ONNX function found" in found[0].reason and found[0].reason in str(raised.value)


def test_the_network_is_left_as_it_was() -> None:
    network = trace("net", Odd().eval(), (3, 8, 8))
    before = network.weights_hash, [str(node) for node in network.module.graph.nodes]
    unwritable(network)
    assert (network.weights_hash, [str(node) for node in network.module.graph.nodes]) == before
