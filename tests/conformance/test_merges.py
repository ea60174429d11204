"""What every merge must pass, in float64: a span of a network by span. New kinds of spans are added to ``SPANS``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.merging.linear import LinearisedBlock, folded
from trt_layermerge.merging.proof import prove_block, prove_network
from trt_layermerge.merging.sequential import execute
from trt_layermerge.network.activations import activation_name
from trt_layermerge.network.network import Network, trace

LIMITS = Limits(max_kernel=99, max_layers=7, bottleneck_activations=True)


@dataclass(frozen=True)
class Span:
    """A chain that merges are tried on.

    Attributes:
        name: For people.
        build: Makes it; all of it must be one chain.
        shape: Of its input.
        skips: Number of skips that the chain must have.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int] = (4, 19, 17)
    skips: int = 0


class Add(nn.Module):
    """``body(x) + skip(x)``."""

    def __init__(self, body: nn.Module, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip = body, nn.Identity() if skip is None else skip

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def conv(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, **settings) -> nn.Conv2d:
    """Padded so that odd kernels keep the size, unless told otherwise."""
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    dilation = settings.get("dilation", 1)
    settings.setdefault("padding", tuple(dilation * (k - 1) // 2 for k in size))
    return nn.Conv2d(inputs, outputs, kernel, **settings)


def unit(*arguments, **settings) -> nn.Sequential:
    """Convolution and norm."""
    module = conv(*arguments, bias=False, **settings)
    return nn.Sequential(module, nn.BatchNorm2d(module.out_channels, eps=1e-3))


def row(*modules: nn.Module) -> nn.Sequential:
    """One after the other with activations between."""
    return nn.Sequential(*[part for module in modules for part in (module, nn.ReLU())][:-1])


def residual(skip: nn.Module | None = None, **settings) -> nn.Module:
    """A residual block on four channels."""
    return Add(row(unit(4, 4, **settings), unit(4, 4)), skip)


def same(inputs: int, outputs: int, **settings) -> nn.Sequential:
    """TensorFlow's SAME padding at stride 2 on even sizes, as sources write it."""
    return nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), *unit(inputs, outputs, stride=2, padding=0, **settings))


def repvgg(inputs: int, outputs: int, stride: int) -> nn.Module:
    """A 3x3 and a 1x1 convolution and, where the shape stays, a norm, side by side."""
    both = Add(unit(inputs, outputs, 1, stride=stride), unit(inputs, outputs, stride=stride))
    return both if stride > 1 else Add(both, nn.BatchNorm2d(outputs))


class Blur(nn.Module):
    """A binomial filter with stride, kept as a buffer."""

    def __init__(self, channels: int, stride: int = 2) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("filt", (taps[:, None] * taps).expand(channels, 1, 3, 3).clone())
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.filt, stride=self.stride, padding=1, groups=len(self.filt))


def then(*modules: nn.Module) -> nn.Sequential:
    """One after the other, nothing between."""
    return nn.Sequential(*modules)


def before(*arguments, **settings) -> nn.Sequential:
    """Norm, activation and convolution, in this order."""
    module = conv(*arguments, **settings)
    return nn.Sequential(nn.BatchNorm2d(module.in_channels), nn.ReLU(), module)


def late(body: nn.Module, skip: nn.Module | None = None) -> nn.Module:
    """``act(body(x)) + skip(x)``."""
    return Add(then(body, nn.ReLU()), skip)


SPANS = [
    Span("stride before a large kernel", lambda: row(unit(4, 6, stride=2), unit(6, 4, 5))),
    Span("stride twice", lambda: row(unit(4, 6, stride=2), unit(6, 6, stride=(2, 1)), conv(6, 2))),
    Span("dilation", lambda: row(conv(4, 4, dilation=2), unit(4, 4, stride=2), conv(4, 4, dilation=3))),
    Span("groups in groups", lambda: row(unit(8, 8, groups=4), unit(8, 8, groups=2), conv(8, 8)), (8, 13, 11)),
    Span("coprime groups", lambda: row(conv(6, 6, groups=2), conv(6, 6, groups=3)), (6, 9, 9)),
    Span("inverted residual", lambda: Add(row(unit(4, 12, 1), unit(12, 12, groups=12), unit(12, 4, 1))), skips=1),
    Span("depthwise with a multiplier", lambda: row(conv(4, 8, groups=4), conv(8, 8, 5, groups=8), conv(8, 3, 1))),
    Span("depthwise only", lambda: row(unit(4, 4, groups=4), unit(4, 4, 5, stride=2, groups=4))),
    Span("asymmetric kernels", lambda: row(unit(4, 4, (1, 7)), unit(4, 4, (7, 1)), conv(4, 4, (3, 5)))),
    Span("even kernels", lambda: row(conv(4, 4, 2), unit(4, 4, 4, padding=1), conv(4, 4, (2, 3), stride=2))),
    Span("no padding", lambda: row(unit(4, 4, padding=0), conv(4, 4, 5, padding=0))),
    Span("more padding than kernel", lambda: row(conv(4, 4, 1, padding=2), unit(4, 4, padding=3))),
    Span("residual inside a block", lambda: row(unit(4, 4), residual(), unit(4, 2)), skips=1),
    Span("projection skip", lambda: row(unit(4, 4), residual(unit(4, 4, 1, stride=2), stride=2)), skips=1),
    Span("large projection", lambda: residual(conv(4, 4, 5, dilation=2)), skips=1),
    Span("nested skips", lambda: Add(row(unit(4, 4), residual(), conv(4, 4))), skips=2),
    Span("nested skips from one tensor", lambda: Add(row(residual(), conv(4, 4))), skips=2),
    Span("nested projections", lambda: Add(row(residual(conv(4, 4, 1)), unit(4, 4)), unit(4, 4, 1)), skips=2),
    Span(
        "projection where the branch has other channels",
        lambda: row(
            conv(4, 4), Add(row(conv(4, 2, 1), Add(row(conv(2, 2), conv(2, 3)), conv(2, 3, 1)), conv(3, 4, 1)))
        ),
        skips=2,
    ),
    Span("two blocks in a row", lambda: row(residual(), residual()), skips=2),
    Span("skip around one layer", lambda: row(conv(4, 4), Add(unit(4, 4)), Add(conv(4, 4), conv(4, 4, 1))), skips=2),
    Span("padding that differs from side to side", lambda: row(same(4, 6), same(6, 6, groups=6), conv(6, 4))),
    Span(
        "residual around such padding", lambda: row(unit(4, 4), Add(row(same(4, 4), conv(4, 4)), same(4, 4))), skips=1
    ),
    Span("norm alone as skip", lambda: row(conv(4, 4), Add(unit(4, 4), nn.BatchNorm2d(4))), skips=1),
    Span("norm around a residual", lambda: Add(row(residual(), unit(4, 4)), nn.BatchNorm2d(4)), skips=2),
    Span("parallel branches", lambda: row(repvgg(4, 6, 2), repvgg(6, 6, 1), repvgg(6, 6, 1)), skips=5),
    Span(
        "sum of branches before the layer",
        lambda: row(conv(4, 4), Add(unit(4, 4, 5), Add(unit(4, 4), nn.Identity()))),
        skips=2,
    ),
    Span("average pooling", lambda: row(then(unit(4, 6), nn.AvgPool2d(2)), unit(6, 4), nn.AvgPool2d(3, 1, 1))),
    Span("pooling before all", lambda: row(then(nn.AvgPool2d((2, 3), (1, 2)), unit(4, 6)), conv(6, 4))),
    Span("overlapping pooling", lambda: then(conv(4, 4), nn.AvgPool2d(3, 2, 1), unit(4, 6), nn.AvgPool2d(2, 1, 1))),
    Span("pooling by another number", lambda: then(conv(4, 4), nn.AvgPool2d(3, 2, 1, False, False, 5), conv(4, 4))),
    Span("depthwise and pooling", lambda: row(unit(4, 4, groups=4), nn.AvgPool2d(3, 2, 1), unit(4, 4, groups=2))),
    Span("norm behind pooling", lambda: row(conv(4, 4), then(nn.AvgPool2d(2), nn.BatchNorm2d(4)), conv(4, 4))),
    Span("blur", lambda: row(then(unit(4, 6), Blur(6)), then(Blur(6, 1), unit(6, 4)))),
    Span(
        "norm behind the activation",
        lambda: then(conv(4, 4), nn.ReLU(), nn.BatchNorm2d(4), unit(4, 6), nn.ReLU(), nn.BatchNorm2d(6), conv(6, 4, 5)),
    ),
    Span("norm at both ends", lambda: then(nn.BatchNorm2d(4), unit(4, 6, stride=2), nn.ReLU(), nn.BatchNorm2d(6))),
    Span(
        "residuals of norm, activation, convolution",
        lambda: then(conv(4, 4), Add(then(before(4, 4), before(4, 4))), Add(before(4, 4)), nn.BatchNorm2d(4)),
        skips=2,
    ),
    Span(
        "projection behind a shared norm",
        lambda: then(conv(4, 4), nn.BatchNorm2d(4), nn.ReLU(), residual(conv(4, 4, 1, stride=2), stride=2)),
        skips=1,
    ),
    Span(
        "dropout",
        lambda: row(
            then(nn.Conv2d(4, 4, 3), nn.Dropout(), nn.BatchNorm2d(4)),
            then(unit(4, 6), nn.Dropout2d()),
            then(unit(6, 4), nn.ReLU(), nn.Dropout(), unit(4, 4)),
            Add(row(unit(4, 4), then(unit(4, 4), nn.Dropout())), then(unit(4, 4), nn.Dropout())),
        ),
        skips=1,
    ),
    Span("an activation of slope 1", lambda: row(then(conv(4, 4), nn.LeakyReLU(1.0), conv(4, 4)), conv(4, 4))),
    Span(
        "skip behind the activation",
        lambda: then(conv(4, 4), late(row(unit(4, 2, 1), unit(2, 4))), conv(4, 4)),
        skips=1,
    ),
    Span(
        "skips behind activations in a row",
        lambda: then(late(row(unit(4, 2, 1), unit(2, 4))), late(unit(4, 4)), late(unit(4, 4, 5)), conv(4, 4)),
        skips=3,
    ),
    Span(
        "projections behind the activation",
        lambda: then(
            late(row(unit(4, 6, stride=2), unit(6, 6)), unit(4, 6, 1, stride=2)),
            late(conv(6, 6), conv(6, 6)),
            conv(6, 4),
        ),
        skips=2,
    ),
    Span(
        "skips before and behind the activation",
        lambda: then(late(residual()), late(Add(conv(4, 4)), conv(4, 4, 1)), conv(4, 4)),
        skips=4,
    ),
    Span(
        "a late skip around others",
        lambda: then(late(then(residual(), nn.ReLU(), late(unit(4, 4)), conv(4, 4))), conv(4, 4)),
        skips=3,
    ),
    Span(
        "pooling, convolution and norm in a skip",
        lambda: row(
            unit(4, 4),
            residual(then(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False), unit(4, 4, 1)), stride=2),
            residual(nn.AvgPool2d(3, 1, 1)),
        ),
        (4, 20, 18),
        skips=2,
    ),
    Span(
        "several layers in a skip",
        lambda: residual(then(nn.BatchNorm2d(4), conv(4, 3), Blur(3, 1), unit(3, 4, 1))),
        skips=1,
    ),
    Span(
        "kernels of a cross side by side",
        lambda: row(
            Add(Add(unit(4, 6, stride=2), unit(4, 6, (1, 3), stride=2)), unit(4, 6, (3, 1), stride=2)),
            Add(unit(6, 6, (3, 1)), Add(unit(6, 6), unit(6, 6, (1, 3)))),
        ),
        skips=4,
    ),
    Span(
        "branches of different lengths side by side",
        lambda: row(
            Add(
                Add(unit(4, 6), then(unit(4, 3, 1), unit(3, 6))),
                Add(then(unit(4, 6, 1), nn.AvgPool2d(3, 1, 1)), unit(4, 6, 1)),
            ),
            unit(6, 4),
        ),
        skips=3,
    ),
]


@pytest.fixture(scope="module", params=SPANS, ids=lambda span: span.name)
def network(request) -> Network:
    span = request.param
    torch.manual_seed(0)
    module = span.build()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    traced = trace(span.name, module, span.shape)
    (chain,) = traced.chains
    assert len(chain.skips) == span.skips
    return traced


def merges(network: Network):
    return [choice for choice in choices_of(network, LIMITS) if choice.kind is Kind.MERGE]


def noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_every_merge_is_proved(network):
    """Each choice of what to keep, dropped branches among them; and its geometry is what the planner was told."""
    (chain,), choices = network.chains, merges(network)
    assert any(len(choice.block) == len(chain) for choice in choices)
    for choice in choices:
        composed = lower(chain, choice).composed
        merged = folded(network.module, composed)
        assert merged.geometry == choice.geometry
        assert prove_block(LinearisedBlock(network.module, composed), merged).error <= 1e-10
        assert merged(noise(chain.shape(choice.block.start))).shape[1:] == chain.shape(choice.block.end)


def test_all_kept_is_the_span_without_its_activations(network):
    """Where no output pixel sees padding, merging changes nothing but the activations."""
    (chain,) = network.chains
    whole = Choice(Block(0, 0, len(chain)), Kind.MERGE, None, tuple(range(1, len(chain) + 1)))
    merged = folded(network.module, lower(chain, whole).composed)
    linear = copy.deepcopy(network.module)
    for name, part in list(linear.named_modules()):
        if activation_name(part) is not None:
            linear.set_submodule(name, nn.Identity())
    g, large = merged.geometry, [2 * size + 40 for size in network.input_shape[1:]]
    x = noise((network.input_shape[0], *large))
    with torch.no_grad():
        actual, expected = merged(x), linear.double()(x)
    assert actual.shape == expected.shape
    for axis in (0, 1):
        low = ceil(g.padding[axis] / g.stride[axis])
        high = (large[axis] + g.padding[axis] - g.kernel[axis]) // g.stride[axis] + 1
        actual, expected = (side.narrow(axis + 2, low, high - low) for side in (actual, expected))
    assert actual.numel() > 0
    assert (actual - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_the_merged_network_is_the_linearised_one(network):
    for choice in merges(network)[-5:]:
        result = execute(network, [choice], [])
        linearised, merged = result.linearised.double(), result.merged.double()
        assert prove_network(linearised, merged, noise(network.input_shape)).end_to_end <= 1e-5  # float32 weights
