"""Borders of a constant, and everything else that is written into a part of an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.network import Network, trace


class Bordered(nn.Module):
    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.a, self.b = conv(4, 4, 1, bias=False), conv(), conv()
        self.valid, self.wide, self.norm = conv(padding=0), conv(8, 4, padding=0), nn.BatchNorm2d(4)
        self.value = nn.Parameter(torch.randn(1, 4, 1, 1))
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.function = forward

    @property
    def of_zero(self) -> Tensor:
        """The norm's own value for zero."""
        n = self.norm
        return (n.bias - n.running_mean * n.weight / torch.sqrt(n.running_var + n.eps)).view(1, -1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def written(y: Tensor, value: Any, by: int = 1) -> Tensor:
    y = F.pad(y, [by] * 4)
    y[:, :, :by] = value
    y[:, :, -by:] = value
    y[:, :, :, :by] = value
    y[..., -by:] = value
    return y


def beside(m: Any, x: Tensor) -> Tensor:
    """Rows and columns of a constant put around an image, one after the other."""
    y, value = m.norm(m.one(x)), m.value.expand(x.shape[0], -1, -1, -1)
    y = torch.cat([row := value.expand(-1, -1, 1, 8), y, row], 2)
    return m.valid(torch.cat([column := value.expand(-1, -1, 10, 1), y, column], 3))


def into(canvas: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """An image written into the middle of a larger one."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = canvas(m, x)
        y[:, :, 1:-1, 1:-1] = m.norm(m.one(x))
        return m.valid(y)

    return forward


def masked(m: Any, x: Tensor) -> Tensor:
    inside = F.pad(torch.ones(1, 1, 8, 8), [1] * 4) > 0
    return m.valid(torch.where(inside, F.pad(m.norm(m.one(x)), [1] * 4), m.value))


BORDERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "written": lambda m, x: m.valid(written(m.norm(m.one(x)), m.of_zero)),
    "written twice as wide": lambda m, x: m.valid(written(m.norm(m.one(x)), m.of_zero, 2)),
    "a number": lambda m, x: m.valid(written(m.norm(m.one(x)), 0.5)),
    "padded with a number": lambda m, x: m.valid(F.pad(m.norm(m.one(x)), (1, 1, 1, 1), value=0.5)),
    "on two sides": lambda m, x: m.valid(F.pad(m.norm(m.one(x)), (0, 2, 2, 0), value=-1.0)),
    "between shifts": lambda m, x: m.valid(F.pad(m.norm(m.one(x)) - m.of_zero, (1, 1, 1, 1)) + m.of_zero),
    "of any value": lambda m, x: m.valid(written(m.a(x), m.value)),
    "put beside it": beside,
    "around it": into(lambda m, x: m.value.expand(x.shape[0], 4, 10, 10).clone()),
    "zeros around it": into(lambda m, x: torch.zeros(x.shape[0], 4, 10, 10)),
    "zeros around it, of its type": into(lambda m, x: x.new_zeros(x.shape[0], 4, 10, 10)),
    "by a mask": masked,
    "in two steps": lambda m, x: m.valid(F.pad(F.pad(m.a(x), (1, 1)), (0, 0, 1, 1))),
}


@pytest.mark.parametrize("forward", BORDERS.values(), ids=BORDERS.keys())
def test_a_border_is_part_of_the_layers_around_it(forward: Callable[[Any, Tensor], Tensor]) -> None:
    (chain,) = same(forward).chains
    assert len(chain) == 2 and any(chain.layers[1].geometry.padding)


def same(forward: Callable[[Any, Tensor], Tensor]) -> Network:
    torch.manual_seed(0)
    source = Bordered(forward).eval()
    network = trace("net", source, (4, 8, 8))
    for batch in (1, 3):
        x = torch.randn(batch, 4, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(network.module(x), source(x), rtol=1e-4, atol=1e-4)
    return network


def halves(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    y[:, :2] = F.relu(y[:, :2])
    return m.b(y)


def through_a_view(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    y.view(-1, 256).mul_(2)
    return m.b(y)


def before_and_after(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    part = y[:, :1]
    y.relu_()
    return m.b(y) * part


def by_mask(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.a(x))
    y[y < 0] = 0
    return m.b(y)


def like_it(m: Any, x: Tensor) -> Tensor:
    """A canvas that takes its size from another image."""
    y = m.one(x)
    canvas = m.value.expand_as(F.pad(x, [1] * 4)).clone()
    canvas[:, :, 1:-1, 1:-1] = y
    return m.valid(canvas)


@pytest.mark.parametrize(
    "forward",
    [
        halves,
        through_a_view,
        before_and_after,
        by_mask,
        like_it,
        lambda m, x: m.wide(torch.cat([m.one(x), m.value.expand(x.shape[0], 4, 8, 8)], 1)),  # channels beside it
        lambda m, x: m.valid(m.one(x)[:, :, 1:-1]),  # a part of it
        lambda m, x: m.valid(written(F.relu(m.a(x)), m.value)),  # no layer before it takes a shift
        lambda m, x: m.a(written(m.one(x), m.value)),  # the layer behind it pads with zeros
        lambda m, x: m.valid(y := written(m.one(x), m.value)) + y[:, :, 1:-1, 1:-1],  # read twice
        lambda m, x: m.valid(F.pad(m.one(x), (1, 1, 1, 1), mode="reflect")),
    ],
)
def test_everything_else_that_is_written_is_exact(forward: Callable[[Any, Tensor], Tensor]) -> None:
    same(forward)


@pytest.mark.parametrize("border", [written, lambda y, value: F.pad(y - value, [1] * 4) + value])
def test_a_block_with_a_border_of_its_norms_own_value_is_one_convolution(
    border: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """A 1x1, that border and a 3x3 without padding, beside a 3x3 and a 1x1: what they compute together is one 3x3."""
    source = nn.Sequential(Block(3, border), Block(4, border)).eval()
    network = trace("net", source, (3, 8, 8))
    merged = [
        choice
        for choice in choices_of(network)
        if choice.kind is Kind.MERGE and len(choice.kept) == len(choice.block) == 2 and not choice.block.start % 2
    ]
    assert [str(choice.geometry) for choice in merged] == [f"{c}>4 k3x3 s1x1 p1,1,1,1 d1x1 g1" for c in (3, 4)]
    x = torch.randn(4, 3, 8, 8)
    result = execute_on(torch.device("cpu"), network, merged, [x]).merged
    assert sum(isinstance(part, nn.Conv2d) for part in result.modules()) == 2
    with torch.no_grad():
        torch.testing.assert_close(result(x), source(x), rtol=1e-4, atol=1e-4)


class Block(nn.Module):
    def __init__(self, channels: int, border: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.long, self.wide, self.short = conv(channels, 4, 1, bias=False), conv(channels, 4), conv(channels, 4, 1)
        self.norm, self.end, self.border = nn.BatchNorm2d(4), conv(padding=0, bias=False), border
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm
        value = (n.bias - n.running_mean * n.weight / torch.sqrt(n.running_var + n.eps)).view(1, -1, 1, 1)
        return torch.relu(self.end(self.border(n(self.long(x)), value)) + self.wide(x) + self.short(x))
