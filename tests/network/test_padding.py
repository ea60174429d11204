from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.network.network import Network, trace
from trt_layermerge.network.padding import PaddedConv2d, geometry_of, remove_padding


class Padded(nn.Module):
    """Two convolutions with a padding between them."""

    def __init__(self, sides: tuple[int, ...], mode: str = "constant", value: float | None = None) -> None:
        super().__init__()
        self.sides, self.mode, self.value = sides, mode, value
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.pad(self.a(x), self.sides, self.mode, self.value))


class ReadTwice(Padded):
    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.a(x), self.sides)
        return self.b(y) + y[:, :, ::2, 1::2][:, :, :5, :4]


def traced(module: nn.Module) -> Network:
    torch.manual_seed(0)
    return trace("net", module, (4, 8, 8))


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (2, 1, 0, 3), (1, 2)])
def test_zeros_on_any_side_become_part_of_the_convolution(sides: tuple[int, ...]) -> None:
    module = Padded(sides)
    network = traced(module)
    (chain,) = network.chains
    left, right, top, bottom = (*sides, 0, 0)[:4]
    assert chain.layers[1].geometry.padding == (top + 1, left, bottom + 1, right)
    assert {name for name, _ in network.module.named_parameters()} == set(module.state_dict())
    assert not any("pad" in node.name for node in network.module.graph.nodes)


@pytest.mark.parametrize(
    "module",
    [
        Padded((1, 1, 1, 1), "reflect"),
        Padded((0, 1, 0, 1), value=1.0),
        Padded((-1, 1, 0, 1)),
        ReadTwice((0, 1, 0, 1)),
    ],
    ids=["reflected", "ones", "cut off", "read twice"],
)
def test_any_other_padding_breaks_the_chain(module: nn.Module) -> None:
    network = traced(module)
    assert [len(chain) for chain in network.chains] == [1, 1]
    assert "padding" in network.chains[0].reason


def test_a_module_with_sides_pads_as_its_geometry_says() -> None:
    conv = nn.Conv2d(4, 6, (3, 2), (1, 2), groups=2)
    padded = PaddedConv2d(conv, (0, 1, 2, 3))
    x = torch.randn(2, 4, 7, 9)
    assert padded.weight is conv.weight and "sides=(0, 1, 2, 3)" in repr(padded)
    assert padded(x).shape[2:] == geometry_of(padded).output_size((7, 9))
    torch.testing.assert_close(padded(x), conv(F.pad(x, (1, 3, 0, 2))))
    bare = copy.deepcopy(padded)
    remove_padding(bare)
    torch.testing.assert_close(bare(F.pad(x, (1, 3, 0, 2))), padded(x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_of_an_even_kernel_is_larger_behind() -> None:
    conv = nn.Conv2d(4, 4, (2, 4), padding="same")
    x = torch.randn(2, 4, 7, 9)
    assert geometry_of(conv).padding == (0, 1, 1, 2)
    torch.testing.assert_close(PaddedConv2d(conv, geometry_of(conv).padding)(x), conv(x))
