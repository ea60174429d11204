from __future__ import annotations

from collections.abc import Callable

from torch import nn

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
    size = Size(2, parameters, 2 * (128 * 18 + 96 * 8 + 960))
    assert size_of(quick(source, (4, 8, 8)).module) == size
    assert size_of(normal_form(source, (4, 8, 8))) == size


def test_what_carries_a_shift_is_counted_once_for_each_image(
    quick: Callable[[nn.Module, tuple[int, ...]], Network],
) -> None:
    class Merged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.carry = nn.Conv2d(4, 8, 1, bias=False), nn.Linear(5, 8, bias=False)

    network = quick(nn.Sequential(nn.Conv2d(4, 8, 1, bias=False)), (4, 3, 3))
    network.module.set_submodule("0", Merged())
    assert size_of(network.module) == Size(1, 32 + 40, 2 * (72 * 4 + 8 * 5))


def test_resnet20_is_as_large_as_its_docstring_says() -> None:
    size = size_of(load_network("examples/fashion_mnist/model.py:resnet20").module)
    assert size.layers == 21 and round(size.parameters / 1e6, 2) == 0.27 and round(size.flops / 2e6) == 31
