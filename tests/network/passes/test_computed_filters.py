"""Convolutions whose weights are computed from parameters alone are those of the same network with plain weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from tests.network.written import Net, conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.network.network import Network, trace

Wrap = Callable[[nn.Conv2d], nn.Module]


class Computing(nn.Conv2d):
    """A convolution that computes its weight before it uses it."""

    def __init__(self, like: nn.Conv2d, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__(
            like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding, like.dilation, like.groups
        )
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.compute(self.weight), self.bias)


class Sliced(nn.Module):
    """The first channels and the middle of a larger layer."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.like, k = like, like.kernel_size[0]
        self.whole = nn.Conv2d(like.in_channels + 3, like.out_channels + 2, k + 2)

    def forward(self, x: Tensor) -> Tensor:
        o, i = self.like.out_channels, self.like.in_channels
        w, b = self.whole.weight[:o, :i, 1:-1, 1:-1], self.whole.bias[:o]
        return F.conv2d(x, w, b, self.like.stride, self.like.padding)


class Summed(nn.Module):
    """A filter and a smaller one in the middle of it."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__()
        self.large, self.small = like, nn.Conv2d(like.in_channels, like.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        sides = [self.large.kernel_size[0] // 2] * 4
        weight = self.large.weight + F.pad(self.small.weight, sides)
        return F.conv2d(x, weight, self.large.bias + self.small.bias, self.large.stride, self.large.padding)


class Typed(nn.Conv2d):
    """A weight that is brought to the type of the image."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(like.in_channels, like.out_channels, like.kernel_size, like.stride, like.padding)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, (2 * self.weight).type_as(x), self.bias.to(x))


def without_gradients(weight: Tensor) -> Tensor:
    with torch.no_grad():
        return weight / weight.norm()


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def standardised(weight: Tensor) -> Tensor:
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    return centred / (centred.std((1, 2, 3), keepdim=True) + 1e-5)


def pruned(layer: nn.Conv2d) -> nn.Module:
    return prune.random_unstructured(prune.random_unstructured(layer, "weight", 0.5), "bias", 0.5)


def parametrised(layer: nn.Conv2d) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return parametrize.register_parametrization(layer, "bias", Doubled())


WRAPS: dict[str, Wrap] = {
    "weight norm": parametrizations.weight_norm,
    "weight norm of old": weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm of old": spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": pruned,
    "parametrised": parametrised,
    "standardised": lambda layer: Computing(layer, standardised),
    "equalised": lambda layer: Computing(layer, lambda weight: weight * 0.3),
    "quantised": lambda layer: Computing(layer, lambda weight: (weight * 32).round() / 32),
    "of the image's type": lambda layer: Typed(layer),
    "without gradients": lambda layer: Computing(layer, without_gradients),
    "sliced": Sliced,
    "summed": Summed,
}


def network(wrap: Wrap) -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8), nn.BatchNorm2d(4)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    layers = [
        wrap(conv(4, 8)),
        norms[0],
        nn.ReLU(),
        wrap(conv(8, 8, 1)),
        nn.ReLU(),
        wrap(conv(8, 4, stride=2)),
        norms[1],
    ]
    return nn.Sequential(*layers).eval()


def unnamed(found: Network) -> Any:
    """What was found, but for the names of layers."""
    return [[(x.geometry, x.bias, x.norm is None, x.activation) for x in c.layers] for c in found.chains]


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_it_is_the_network_of_plain_weights(wrap: Wrap) -> None:
    plain, source = trace("plain", network(lambda layer: layer), (4, 8, 8)), network(wrap)
    found = trace("net", source, (4, 8, 8))
    assert unnamed(found) == unnamed(plain) and len(found.chains) == 1
    assert [choice.key for choice in choices_of(found)] == [choice.key for choice in choices_of(plain)]
    x = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.module(x), source(x))
    shapes = [value.shape for value in found.module.state_dict().values()]
    assert sorted(shapes) == sorted(value.shape for value in plain.module.state_dict().values())


@pytest.mark.parametrize("name", ["weight norm", "spectral norm of old", "pruned", "parametrised", "standardised"])
def test_layers_keep_the_names_that_they_have_without_it(name: str) -> None:
    plain, found = (trace("net", network(wrap), (4, 8, 8)) for wrap in (lambda layer: layer, WRAPS[name]))
    assert found.module.state_dict().keys() == plain.module.state_dict().keys()


def test_parts_of_one_parameter_are_layers_of_their_own() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, m.a.weight[:4], m.a.bias[:4], padding=1).relu()
        return F.conv2d(y, m.a.weight[4:], m.a.bias[4:], padding=1)

    source = Net(forward, a=conv(4, 8))
    found = trace("net", source, (4, 8, 8))
    assert [layer.name for chain in found.chains for layer in chain.layers] == ["a", "a_1"]
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(found.module(x), source(x))


def test_names_of_ones_own_and_filters_of_buffers() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel, self.shift = nn.Parameter(torch.randn(4, 4, 3, 3)), nn.Parameter(torch.randn(4))
            self.register_buffer("blur", torch.rand(3))

        def forward(self, x: Tensor) -> Tensor:
            y = F.conv2d(x, self.kernel, self.shift, padding=1)
            return F.conv2d(y, (self.blur[:, None] * self.blur).expand(4, 1, 3, 3), None, 1, 1, groups=4)

    source = Own()
    found = trace("net", source, (4, 8, 8))
    (chain,) = found.chains
    layers = [found.module.get_submodule(layer.name) for layer in chain.layers]
    assert [layer.weight.requires_grad for layer in layers] == [True, False]
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(found.module(x), source(x))


def test_a_norm_of_computed_weights_is_one() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.batch_norm(m.a(x), m.n.running_mean, m.n.running_var, 1 + m.n.weight, m.n.bias)
        return m.b(y.relu())

    source = Net(forward, a=conv(), b=conv(), n=nn.BatchNorm2d(4))
    found = trace("net", source.eval(), (4, 8, 8))
    assert [(layer.name, layer.norm is not None) for layer in found.layers] == [("a", True), ("b", False)]
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(found.module(x), source(x))


def test_what_depends_on_the_image_or_on_chance_is_no_filter() -> None:
    gated = Net(lambda m, x: F.conv2d(m.a(x), m.b.weight * torch.ones_like(x).mean(), padding=1), a=conv(), b=conv())
    found = trace("net", gated, (4, 8, 8))
    assert [layer.name for layer in found.layers] == ["a"]


def test_the_source_keeps_its_own() -> None:
    source = network(parametrizations.weight_norm)
    before = copy.deepcopy(source.state_dict())
    with torch.no_grad():
        for parameter in trace("net", source, (4, 8, 8)).module.parameters():
            parameter.add_(1)
    torch.testing.assert_close(source.state_dict(), before, rtol=0, atol=0)
