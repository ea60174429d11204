"""Products and sums per channel are part of the layers around them, however they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.network.network import Network, trace
from trt_layermerge.network.trace import normal_form


class Scaled(nn.Module):
    """Convolutions and norms by name, and numbers for each channel beside them."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> None:
        super().__init__()
        self.a, self.b, self.narrow = conv(), conv(), conv(4, 8, 1, groups=2)
        self.norm, self.bare = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)
        self.scale, self.shift = nn.Parameter(torch.randn(4, 1, 1)), nn.Parameter(torch.randn(1, 4, 1, 1))
        self.one, self.field = nn.Parameter(torch.randn(1)), nn.Parameter(torch.randn(1, 4, 8, 8))
        self.register_buffer("mean", torch.randn(4))
        for norm in (self.norm, self.bare):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        for name, module in more.items():
            self.add_module(name, module)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def found(forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> Network:
    """The network, which computes what it is written as, for any batch."""
    torch.manual_seed(0)
    source = Scaled(forward, **more).eval()
    network = trace("net", source, (4, 8, 8))
    for batch in (1, 3):
        x = torch.randn(batch, 4, 8, 8)
        with torch.no_grad():
            torch.testing.assert_close(network.module(x), source(x), rtol=1e-4, atol=1e-4)
    return network


def frozen(m: Any, x: Tensor) -> Tensor:
    scale = m.norm.weight * (m.norm.running_var + m.norm.eps).rsqrt()
    return x * scale.reshape(1, -1, 1, 1) + (m.norm.bias - m.norm.running_mean * scale).reshape(1, -1, 1, 1)


AS_NORMS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "product and sum": lambda m, x: m.b(F.relu(m.a(x) * m.scale + m.shift)),
    "the other way round": lambda m, x: m.b(F.relu(m.shift + m.scale * m.a(x))),
    "difference and quotient": lambda m, x: m.b(F.relu((m.a(x) - m.shift) / m.scale)),
    "taken from": lambda m, x: m.b(F.relu(m.shift - m.a(x))),
    "negative": lambda m, x: m.b(F.relu(-m.a(x))),
    "one operator": lambda m, x: m.b(F.relu(torch.addcmul(m.shift, m.a(x), m.scale, value=2))),
    "with a factor": lambda m, x: m.b(F.relu(torch.sub(m.a(x), m.shift, alpha=3))),
    "taken from a number": lambda m, x: m.b(F.relu(torch.rsub(m.a(x), 1.5))),
    "a sum alone": lambda m, x: m.b(F.relu(m.a(x) + m.mean[:, None, None])),
    "one number": lambda m, x: m.b(F.relu(m.a(x) * 0.5 - 1)),
    "one trained number": lambda m, x: m.b(F.relu(m.a(x) * m.one)),
    "expanded": lambda m, x: m.b(F.relu((y := m.a(x)) + m.shift.expand_as(y))),
    "in place": lambda m, x: m.b(F.relu(m.a(x).mul_(m.scale).add_(m.shift))),
    "a frozen norm": lambda m, x: m.b(F.relu(frozen(m, m.a(x)))),
    "behind a norm": lambda m, x: m.b(F.relu(m.norm(m.a(x)) * m.scale + m.shift)),
    "behind a norm without weights": lambda m, x: m.b(F.relu(m.bare(m.a(x)) * m.scale + m.shift)),
    "before a norm": lambda m, x: m.b(F.relu(m.norm(m.a(x) * m.scale + m.shift))),
    "before a convolution": lambda m, x: m.narrow(F.relu(m.a(x)) * m.scale + m.shift),
    "a scale before padding": lambda m, x: m.b(F.relu(m.a(x)) * m.scale),
    "of a whole field, but alike": lambda m, x: m.b(F.relu(m.a(x) + m.shift.repeat(1, 1, 8, 8))),
}


@pytest.mark.parametrize("forward", AS_NORMS.values(), ids=AS_NORMS.keys())
def test_it_is_part_of_a_layer_as_a_norm_is(forward: Callable[[Any, Tensor], Tensor]) -> None:
    network = found(forward)
    plain = found(lambda m, x: (m.narrow if "narrow" in forward.__code__.co_names else m.b)(F.relu(m.a(x))))
    (chain,) = network.chains
    assert [(layer.name, layer.activation) for layer in chain.layers] == [
        ("a", "relu"),
        (plain.layers[1].name, None),
    ]
    assert [choice.key for choice in choices_of(network)] == [choice.key for choice in choices_of(plain)]


def test_scales_of_residual_branches_are_part_of_them() -> None:
    for forward in (
        lambda m, x: F.relu(m.b(F.relu(m.a(x))) * 0.2 + x),
        lambda m, x: F.relu(x + m.scale * m.b(F.relu(m.a(x)))),
        lambda m, x: F.relu(x + m.norm(m.b(F.relu(m.a(x)))) * m.one),
    ):
        (chain,) = found(forward).chains
        assert [(skip.start, skip.end) for skip in chain.skips] == [(0, 2)] and len(chain) == 2


def test_a_transposed_convolution_takes_in_what_follows_it() -> None:
    for settings in ({}, {"groups": 2}, {"bias": False}):
        up = nn.ConvTranspose2d(4, 4, 2, 2, **settings)
        network = found(lambda m, x: m.b(F.relu(m.up(m.a(x)) * m.scale + m.shift)), up=up)
        assert [node.name for node in network.module.graph.nodes] == ["x", "a", "up", "relu", "b", "output"]


def test_behind_an_addition_it_is_a_layer_of_its_own_as_a_norm_is() -> None:
    (chain,) = found(lambda m, x: (y := m.a(x) + x) + m.b(F.relu(y * m.scale + m.shift))).chains
    assert [layer.geometry.groups for layer in chain.layers] == [1, 4, 1]
    assert [(skip.start, skip.end) for skip in chain.skips] == [(0, 1), (1, 3)]


def test_a_shift_before_padding_does_not_pass_it() -> None:
    """Zeros around the image would be shifted too: the border would be wrong."""
    (chain,) = found(lambda m, x: m.b(F.relu(m.a(x)) * m.scale + m.shift)).chains
    assert [layer.geometry.groups for layer in chain.layers] == [1, 4, 1]


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.a(F.relu(m.a(x) * m.scale + m.shift)),  # the layer is called twice
        lambda m, x: m.b(F.relu(m.a(x) * m.scale)) + m.a.weight.mean(),  # its weights are read
        lambda m, x: m.b(F.relu((y := m.a(x)) * m.scale) + y),  # its result is
        lambda m, x: m.b(F.relu(m.a(x) + m.field)),  # not one number for a channel
        lambda m, x: m.b((y := m.a(x)) * F.relu6(y + 3) / 6),  # a gate
        lambda m, x: m.scale / m.b(m.a(x)).exp(),  # not linear
        lambda m, x: m.b(m.a(x) * m.scale.mean() * x.mean((2, 3), keepdim=True)),  # from the image
    ],
)
def test_anything_else_computes_what_it_did(forward: Callable[[Any, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    source = Scaled(forward).eval()
    module, x = normal_form(source, (4, 8, 8)), torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(module(x), source(x), rtol=1e-4, atol=1e-4)
