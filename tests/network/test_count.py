from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trt_layermerge.network.count import Size, size_of
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.network.trace import normal_form


def test_a_small_network_by_hand(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> None:
    source = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2),  # 8x4x4 outputs of 2 * 9, and a bias
        nn.BatchNorm2d(8),
        nn.Sequential(nn.ReLU(), nn.Conv2d(8, 6, 1, bias=False)),  # 6x4x4 outputs of 8
        nn.Flatten(),
        nn.Linear(96, 10),
    )
    parameters = 8 * 18 + 8 + 16 + 48 + 96 * 10 + 10
    # At its most: the input, 4x8x8 numbers, and what the first convolution makes of it; float32.
    size = Size(2, 2, parameters, 2 * (128 * 18 + 96 * 8 + 960), 4 * (256 + 128))
    assert size_of(quick(source, (4, 8, 8)).module) == size
    assert size_of(normal_form(source, (4, 8, 8))) == size


class Branched(nn.Module):
    """Two convolutions beside one, and a product of matrices that is no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(2, 2, 1, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = (self.b(self.a(x)) + self.c(x)).flatten(2)
        return y @ y.transpose(1, 2)


def test_depth_is_the_longest_path_and_products_count(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> None:
    size = size_of(quick(Branched(), (2, 3, 3)).module)
    assert (size.layers, size.depth) == (3, 2)
    assert size.flops == 2 * (3 * 4 * 9 + 2 * 9 * 2)
    # a(x), b(a(x)) and x, or b(a(x)), x and c(x): 18 numbers each.
    assert size.peak_bytes == 4 * 54


def test_counting_leaves_modes_as_they_were(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> None:
    module = quick(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)), (2, 3, 3)).module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    size_of(module)
    assert all(part.training for part in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_what_carries_a_shift_is_counted_once_for_each_image(
    quick: Callable[[nn.Module, tuple[int, ...]], Network],
) -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.carry = nn.Conv2d(4, 8, 1, bias=False), nn.Linear(5, 8, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.carry(x.new_ones(len(x), 5))[:, :, None, None]

    network = quick(nn.Sequential(nn.Conv2d(4, 8, 1, bias=False)), (4, 3, 3))
    network.module.set_submodule("0", Merged())
    size = size_of(network.module)
    assert (size.layers, size.parameters, size.flops) == (1, 32 + 40, 2 * (72 * 4 + 8 * 5))


def test_resnet20_is_as_large_as_its_docstring_says() -> None:
    size = size_of(load_network("examples/fashion_mnist/model.py:resnet20").module)
    assert size.layers == 21 and round(size.parameters / 1e6, 2) == 0.27 and round(size.flops / 2e6) == 31
