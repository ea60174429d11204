"""What every network must survive, wherever it comes from; a new kind of network is one more line in ``NETWORKS``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.network.cut import onward, up_to
from trt_layermerge.network.network import Network, trace
from trt_layermerge.network.source import load_source


class Net(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


def unit(i: int, o: int, k: int = 3, **kwargs: Any) -> nn.Sequential:
    return nn.Sequential(conv(i, o, k, bias=False, **kwargs), nn.BatchNorm2d(o), nn.ReLU6(inplace=True))


def bottleneck(stride: int, projection: bool) -> nn.Module:
    out = 8 if projection else 4
    short = conv(4, out, 1, stride=stride) if projection else nn.Identity()
    body = nn.Sequential(unit(4, 12, 1), unit(12, 12, 3, stride=stride, groups=12), conv(12, out, 1))
    return Net(lambda m, x: F.relu(m.body(m.stem(x)) + m.short(m.stem(x))), stem=conv(), body=body, short=short)


def residual(stride: int) -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.head(F.relu(m.body(x) + m.short(x)).mean((2, 3)))

    body = nn.Sequential(unit(4, 8, stride=stride), conv(8, 8), nn.BatchNorm2d(8))
    return Net(forward, stem=unit(4, 4), body=body, short=conv(4, 8, 1, stride=stride), head=nn.Linear(8, 3))


def squeezed(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.b(x * torch.sigmoid(m.e(F.adaptive_avg_pool2d(x, 1))))


def u_shaped(m: Any, x: Tensor) -> Tensor:
    deep = F.interpolate(m.c(m.b(F.max_pool2d(x := m.a(x), 2))), scale_factor=2.0)
    return m.d(torch.cat([x, deep], 1))


def two_branches(m: Any, x: Tensor) -> Tensor:
    return m.d(torch.cat([m.b(m.a(x)), m.c(x)], 1))


NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "one convolution": lambda: (conv(stride=2), (4, 9, 7)),
    "plain": lambda: (nn.Sequential(unit(4, 8), nn.MaxPool2d(2), unit(8, 8), unit(8, 4)), (4, 8, 8)),
    "odd geometries": lambda: (
        nn.Sequential(
            nn.Conv2d(4, 8, (3, 1), (2, 1), (0, 2)),
            conv(8, 8, 3, dilation=2, padding=1, groups=2),
            conv(8, 4, 2),
        ),
        (4, 17, 13),
    ),
    "uneven padding": lambda: (
        nn.Sequential(unit(4, 8), nn.ZeroPad2d((0, 1, 2, 1)), conv(8, 8, stride=2, padding=0), conv(8, 4)),
        (4, 8, 10),
    ),
    "residual": lambda: (residual(1), (4, 8, 8)),
    "projection": lambda: (residual(2), (4, 8, 8)),
    "shared stem": lambda: (bottleneck(1, projection=False), (4, 8, 8)),
    "shared stem, projection": lambda: (bottleneck(2, projection=True), (4, 8, 8)),
    "nested skips": lambda: (
        Net(lambda m, x: m.d(F.relu(m.c(F.relu(m.b(y := m.a(x)))) + y)) + x, **{name: conv() for name in "abcd"}),
        (4, 8, 8),
    ),
    "crossing skips": lambda: (
        Net(lambda m, x: m.c(z := m.b(y := m.a(x)) + x) + y + z, **{name: conv() for name in "abc"}),
        (4, 8, 8),
    ),
    "squeeze and excitation": lambda: (Net(squeezed, a=unit(4, 8), b=conv(8), e=conv(8, 8, 1)), (4, 8, 8)),
    "u-net": lambda: (Net(u_shaped, a=conv(), b=conv(), c=conv(), d=conv(8)), (4, 8, 8)),
    "two branches": lambda: (Net(two_branches, a=conv(), b=conv(), c=conv(), d=conv(8)), (4, 8, 8)),
    "group norm": lambda: (nn.Sequential(conv(), nn.GroupNorm(2, 4), nn.SiLU(), conv()), (4, 8, 8)),
    "one pixel": lambda: (Net(lambda m, x: m.b(m.a(x)) + x, a=conv(stride=2), b=conv()), (4, 1, 1)),
    "torchvision:squeezenet1_1": lambda: (load_source("torchvision:squeezenet1_1").module, (3, 64, 64)),
    "timm:repvgg_a0": lambda: (load_source("timm:repvgg_a0").module, (3, 32, 32)),
    "timm:test_efficientnet": lambda: (load_source("timm:test_efficientnet").module, (3, 32, 32)),
}

Case = tuple[nn.Module, Network]


@pytest.fixture(scope="module", params=NETWORKS.values(), ids=NETWORKS.keys())
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    source, shape = request.param()
    return source, trace("net", source, shape)


def test_it_computes_the_same_for_any_batch(case: Case) -> None:
    source, network = case
    for batch in (1, 3):
        x = torch.randn(batch, *network.input_shape)
        with torch.no_grad():
            torch.testing.assert_close(network.module(x), source.eval()(x))


def test_its_names_and_numbers_are_the_sources(case: Case) -> None:
    source, network = case
    expected = source.state_dict()
    for name, value in network.module.state_dict().items():
        given = expected[name if name in expected else name.partition(".")[2]]  # the source itself is one layer
        torch.testing.assert_close(value, given, rtol=0, atol=0)


def test_every_convolution_is_in_one_place_or_has_a_reason(case: Case) -> None:
    _, network = case
    places = [layer.name for layer in network.layers]
    places += [unit.name for chain in network.chains for skip in chain.skips for unit in skip.units if unit.conv]
    all_of_them = {name for name, module in network.module.named_modules() if isinstance(module, nn.Conv2d)}
    assert max(Counter(places).values()) == 1
    assert all_of_them == set(places) | {item.after for item in network.breaks}
    assert all(item.reason for item in network.breaks)


def test_shapes_are_those_of_real_tensors(case: Case) -> None:
    _, network = case
    x = torch.randn(2, *network.input_shape)
    for chain in network.chains:
        assert [layer.index for layer in chain.layers] == list(range(1, len(chain) + 1))
        nodes = [chain.tensor(index) for index in range(len(chain) + 1)]
        with torch.no_grad():
            tensors = up_to(network.module, nodes)(x)
        assert [tuple(tensor.shape[1:]) for tensor in tensors] == [chain.shape(i) for i in range(len(chain) + 1)]
        for layer in chain.layers:
            height, width = layer.geometry.output_size(layer.input_shape[1:])
            assert (layer.geometry.out_channels, height, width) == layer.output_shape


def test_a_chain_is_all_that_its_end_needs_of_its_inside(case: Case) -> None:
    """Behind a chain nothing reads a tensor inside of it: its last tensor is enough to go on."""
    _, network = case
    x = torch.randn(2, *network.input_shape)
    for chain in network.chains:
        inside = {chain.tensor(index) for index in range(1, len(chain))}
        before = [node.name for node in network.module.graph.nodes if node.name not in inside]
        before = before[: before.index(chain.tensor(len(chain))) + 1]
        rest, needed = onward(network.module, before)
        with torch.no_grad():
            torch.testing.assert_close(rest(*up_to(network.module, needed)(x)), network.module(x))


def test_its_choices_have_names_shapes_and_costs(case: Case) -> None:
    _, network = case
    choices = choices_of(network, Limits(max_kernel=9, bottleneck_activations=True))
    assert len({choice.key for choice in choices}) == len(choices)
    assert sum(choice.kind is Kind.KEEP for choice in choices) == len(network.layers)
    for choice in choices:
        costs = signatures(network, choice, Setting(2))
        assert all(Signature.parse(cost.key) == cost and not cost.empty for cost in costs)
        if choice.geometry is not None:
            region, chain = choice.block.region, network.chains[choice.block.chain]
            expected = chain.shape(choice.block.end) if region is None else network.regions[region].output_shape
            assert costs[0].output_shape == expected
