"""Why chains end, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import MAX, Net, conv, found, names, option_a
from trt_layermerge.network.network import trace
from trt_layermerge.network.units import SHARED

OUTSIDE = "adds a tensor that does not come from this chain through convolutions alone"


def one_pixel(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(m.b(x)) + x  # stride 2 keeps 1x1 as it is


def upsampled(m: Any, x: Tensor) -> Tensor:
    return m.b(F.interpolate(m.a(x), scale_factor=2))


TWO = {"a": conv, "b": conv}
REASONS: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, Callable[[], nn.Module]], list[list[str]], str]] = {
    "read by others": (
        lambda m, x: m.b(y := m.a(x)) * y.sigmoid(),
        TWO,
        [["a"], ["b"]],
        "its output is also read by an activation, beside what else reads it (Sigmoid sigmoid)",
    ),
    "an inner tensor read by others": (lambda m, x: m.n(y := m.a(x)) * y, {"a": conv, "n": lambda: nn.BatchNorm2d(4)},
        [["a"]], "its output is also read by a product of two tensors, which is not linear (mul)"),
    "branches": (
        lambda m, x: torch.relu(m.b(y := m.a(x))) * torch.relu(m.c(y)),
        {**TWO, "c": conv},
        [["a"], ["b"], ["c"]],
        "its output branches into 2 convolutions",
    ),
    "shared weights": (
        lambda m, x: m.b(m.b(m.a(x)).relu()),
        TWO,
        [["a"]],
        f"feeds convolution b, which cannot be merged: {SHARED}",
    ),
    "shared norm": (lambda m, x: m.n(m.b(m.n(m.a(x)))), {**TWO, "n": lambda: nn.BatchNorm2d(4)}, [["a"], ["b"]],
        f"feeds a batch norm: {SHARED} (BatchNorm2d n)"),
    "shared activation": (lambda m, x: m.p(m.b(m.p(m.a(x)))), {**TWO, "p": nn.PReLU}, [["a"], ["b"]],
        "feeds an activation shared with others (PReLU p)"),
    "group norm": (lambda m, x: m.b((y := m.g(m.a(x))) + y.relu()), {**TWO, "g": lambda: nn.GroupNorm(2, 4)},
        [["a"], ["b"]], "feeds a group norm, whose statistics come from the data, so that it cannot be folded "
        "(GroupNorm g)"),
    "concatenation": (lambda m, x: m.b(torch.cat([m.a(x), x], 1)), {"a": conv, "b": lambda: conv(8)}, [["a"], ["b"]],
        "feeds a concatenation: the next layer reads several tensors (cat)"),
    "resize": (upsampled, TWO, [["a"], ["b"]],
        "feeds a resize: the next layer reads another grid of pixels (upsample_nearest2d)"),
    "pooling": (lambda m, x: m.b(F.max_pool2d(m.a(x), 2)), TWO, [["a"], ["b"]], MAX),
    "pooling over a part of its padding": (lambda m, x: m.b(F.avg_pool2d(m.a(x), 3, 1, 1, count_include_pad=False)),
        TWO, [["a"], ["b"]], "feeds average pooling that leaves its padding out of the average: weights differ at the "
        "border (AvgPool2d avg_pool2d)"),
    "pooling over a part of a window": (lambda m, x: m.b(F.avg_pool2d(m.a(x), 3, 2, ceil_mode=True)), TWO,
        [["a"], ["b"]], "feeds average pooling whose last windows are cut off (ceil_mode): weights differ at the "
        "border (AvgPool2d avg_pool2d)"),
    "other padding": (lambda m, x: m.b(F.pad(m.a(x), (1, 1, 1, 1), mode="reflect")), TWO, [["a"], ["b"]],
        "feeds padding with pixels of the image, not with zeros (pad)"),
    "squeeze-and-excitation": (lambda m, x: m.b((y := m.a(x)) * m.c(y.mean((2, 3), keepdim=True)).sigmoid()),
        {**TWO, "c": conv}, [["a"], ["c"], ["b"]],
        "feeds squeeze-and-excitation, which multiplies by what it computes from the whole image (mean, mul)"),
    "layer norm": (lambda m, x: m.b(m.n(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
        {**TWO, "n": lambda: nn.LayerNorm(4)}, [["a"], ["b"]],
        "feeds a change of layout, as before attention, a linear layer or a layer norm over channels (permute)"),
    "scale": (lambda m, x: m.b((m.a(x).relu() * 0.5).relu()), TWO, [["a"], ["b"]],
        "feeds a product with a constant, which is linear, but not folded here (mul)"),
    "pixel shuffle": (lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), {"a": conv, "b": lambda: conv(1)}, [["a"], ["b"]],
        "feeds a pixel shuffle, which makes pixels of channels (pixel_shuffle)"),
    "computed weights": (lambda m, x: F.conv2d(m.a(x), m.b.weight * torch.ones_like(x).mean()), TWO, [["a"]],
        "feeds a filter that is no layer: its weights are computed, or not named as a layer's (conv2d)"),
    "outside": (lambda m, x: m.b(m.a(x) + x.sigmoid()), TWO, [["a"], ["b"]],
        f"{OUTSIDE} (Sigmoid sigmoid)"),
    "added to itself": (lambda m, x: m.b((y := m.a(x)) + y), TWO, [["a"], ["b"]],
        "its output is added to itself, which is no skip"),
    "added to itself behind a norm": (lambda m, x: (y := m.n(m.a(x))) + y, {"a": conv, "n": lambda: nn.BatchNorm2d(4)},
        [["a"]], "its output is added to itself, which is no skip"),
    "option A": (option_a, {"a": conv, "b": lambda: conv(4, 8, stride=2), "c": lambda: conv(8, 8)},
        [["a"], ["b", "c"]],
        "its output is also read by a slice: only some of its channels or pixels go "
        "on (slice)"),
    "projection of an activation": (lambda m, x: m.b(m.a(x).relu()) + m.p(x).relu(), {**TWO, "p": lambda: conv(k=1)},
        [["a", "b"], ["p"]], f"{OUTSIDE} (ReLU relu_1)"),
    "transposed": (lambda m, x: m.b(m.a(x)), {"a": conv, "b": lambda: nn.ConvTranspose2d(4, 4, 2)}, [["a"]],
        "feeds a transposed convolution, which reads a grid finer than its input's (ConvTranspose2d b)"),
}  # fmt: skip


@pytest.mark.parametrize(("function", "makers", "layers", "reason"), REASONS.values(), ids=REASONS.keys())
def test_why_a_chain_ends(
    function: Callable[[Any, Tensor], Tensor],
    makers: dict[str, Callable[[], nn.Module]],
    layers: list[list[str]],
    reason: str,
) -> None:
    network = found(function, **{name: make() for name, make in makers.items()})
    assert [names(chain) for chain in network.chains] == layers
    assert network.chains[0].reason == reason
    assert {(chain.layers[-1].name, chain.reason) for chain in network.chains} <= {
        (item.after, item.reason) for item in network.breaks
    }


def test_option_a_says_what_it_adds() -> None:
    network = found(option_a, a=conv(), b=conv(4, 8, stride=2), c=conv(8, 8))
    assert network.chains[1].reason == "adds a tensor with channels padded to it, which is no convolution (pad)"


def test_shared_weights_are_named() -> None:
    network = found(lambda m, x: m.b(m.b(m.a(x)).relu()), a=conv(), b=conv())
    assert ("b", SHARED) in [(b.after, b.reason) for b in network.breaks]


def test_a_skip_must_have_the_stride_of_what_it_leads_around() -> None:
    modules = {"a": conv(), "b": conv(stride=2), "c": conv()}
    network = trace("net", Net(one_pixel, **modules), (4, 1, 1))
    assert [names(chain) for chain in network.chains] == [["a"], ["b", "c"]]
    assert network.chains[1].reason == "adds a tensor of another stride (convolution a)"
