from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.chain import Chain
from trt_layermerge.network.discover import find_chains
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network, load_network, trace
from trt_layermerge.network.padding import geometry_of
from trt_layermerge.network.trace import normal_form

GLOBAL = "feeds global average pooling, behind which no image is left (adaptive_avg_pool2d)"
MAX = "feeds max pooling, which is not linear (max_pool2d)"
OUTSIDE = "adds a tensor that does not come from this chain through convolutions alone"

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "model.py"


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


def chains(function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> tuple[Chain, ...]:
    return found(function, **modules).chains


def found(function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> Network:
    return trace("net", Net(function, **modules), (4, 8, 8))


def names(chain: Chain) -> list[str]:
    return [layer.name for layer in chain.layers]


def ends(chain: Chain) -> list[tuple[int, int, str | None]]:
    return [(skip.start, skip.end, skip.name) for skip in chain.skips]


# Known networks


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_model", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet56", 9)])
def test_resnets_of_the_example(example: ModuleType, name: str, n: int) -> None:
    network = trace(name, getattr(example, name)(), (1, 28, 28))
    (chain,) = network.chains
    assert len(chain) == 6 * n + 1
    assert names(chain) == ["stem", *(f"stages.{b}.conv{c}" for b in range(3 * n) for c in (1, 2))]
    assert {layer.activation for layer in chain.layers} == {"relu"}
    projections = {n: f"stages.{n}.shortcut.0", 2 * n: f"stages.{2 * n}.shortcut.0"}
    assert ends(chain) == [(2 * b + 1, 2 * b + 3, projections.get(b)) for b in range(3 * n)]
    sizes = [(16, 28, 28)] * (2 * n + 1) + [(32, 14, 14)] * (2 * n) + [(64, 7, 7)] * (2 * n)
    assert [layer.output_shape for layer in chain.layers] == sizes
    assert chain.reason == GLOBAL
    assert [(b.after, b.reason) for b in network.breaks] == [(f"stages.{3 * n - 1}.conv2", chain.reason)]


def test_mobilenet_v2() -> None:
    (chain,) = load_network("torchvision:mobilenet_v2", None, (3, 64, 64)).chains
    assert len(chain) == 52 and chain.reason == GLOBAL
    # Stem, block 1 of two layers, then blocks of three; skips where stride 1 meets equal widths.
    with_skips = [1, 3, 4, 6, 7, 8, 10, 11, 13, 14]
    assert ends(chain) == [(3 * b + 3, 3 * b + 6, None) for b in with_skips]
    assert [layer.activation for layer in chain.layers] == ["relu6"] * 2 + [None] + ["relu6", "relu6", None] * 16 + [
        "relu6"
    ]
    assert [layer.index for layer in chain.layers if layer.geometry.groups > 1] == [2, *range(5, 52, 3)]
    assert all(layer.bias and layer.norm for layer in chain.layers)


def test_resnet34_is_behind_its_max_pool() -> None:
    network = load_network("torchvision:resnet34")
    stem, chain = network.chains
    assert names(stem) == ["conv1"] and stem.reason == MAX
    assert len(chain) == 32 and chain.layers[0].input_shape == (64, 56, 56)
    assert {layer.output_shape for layer in chain.layers[:6]} == {(64, 56, 56)}
    assert chain.layers[-1].output_shape == (512, 7, 7)
    projections = {3: "layer2.0.downsample.0", 7: "layer3.0.downsample.0", 13: "layer4.0.downsample.0"}
    assert ends(chain) == [(2 * b, 2 * b + 2, projections.get(b)) for b in range(16)]


def test_vgg16_bn() -> None:
    network = load_network("torchvision:vgg16_bn", None, (3, 64, 64))
    assert [len(chain) for chain in network.chains] == [2, 2, 3, 3, 3]
    assert {chain.reason for chain in network.chains} == {MAX}
    assert not any(chain.skips for chain in network.chains)
    assert all(layer.bias and layer.norm and layer.activation == "relu" for layer in network.layers)


def test_repvgg_is_one_chain_of_parallel_branches() -> None:
    (chain,) = load_network("timm:repvgg_a0", None, (3, 32, 32)).chains
    assert len(chain) == 22 and {layer.geometry.kernel for layer in chain.layers} == {(3, 3)}
    small = [skip for skip in chain.skips if skip.units[0].conv is not None]
    norms = [skip for skip in chain.skips if skip.units[0].conv is None]
    assert [(skip.start, skip.end) for skip in small] == [(index, index + 1) for index in range(22)]
    assert [skip.end for skip in norms] == [layer.index for layer in chain.layers if layer.geometry.keeps_shape]
    assert all(unit.norm and unit.name and unit.bias for skip in norms for unit in skip.units)


def test_same_padding_of_tensorflow_breaks_no_chain() -> None:
    (chain,) = load_network("timm:tf_efficientnet_lite0", None, (3, 64, 64)).chains
    paddings = {layer.geometry.padding for layer in chain.layers if layer.geometry.stride == (2, 2)}
    assert len(chain) == 49 and paddings == {(0, 0, 1, 1), (1, 1, 2, 2)}


# Layers


def test_functions_and_writing_in_place_are_layers_as_modules_are() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.relu_(m.n(F.conv2d(x, m.a.weight, m.a.bias, padding=1)))
        y = F.leaky_relu(m.b(y), 0.2, inplace=True)
        y = m.c(y)
        y += x
        return y

    network = found(forward, a=conv(), n=nn.BatchNorm2d(4), b=conv(bias=False), c=conv())
    (chain,) = network.chains
    assert [(layer.name, layer.activation, layer.bias) for layer in chain.layers] == [
        ("a", "relu", True),
        ("b", "leaky_relu(0.2)", False),
        ("c", None, True),
    ]
    assert ends(chain) == [(0, 3, None)]
    assert chain.reason == "feeds the network's output"


def test_a_convolution_alone() -> None:
    (chain,) = trace("conv", conv(4, 6, 3, stride=2), (4, 8, 8)).chains
    (layer,) = chain.layers
    assert (layer.input_shape, layer.output_shape, layer.bias, layer.norm) == ((4, 8, 8), (6, 4, 4), True, None)
    assert layer.geometry == Geometry(4, 6, (3, 3), (2, 2), (1, 1, 1, 1))


def test_nodes_of_a_layer() -> None:
    (chain,) = chains(lambda m, x: F.relu(m.n(m.b(m.a(x))) + x), a=conv(), b=conv(), n=nn.BatchNorm2d(4))
    first, second = chain.layers
    assert first.conv == first.first == first.last == first.before_activation == first.output == chain.tensor(1)
    assert second.last == second.norm != second.conv == second.first
    assert second.before_activation == second.adds[-1] == chain.skips[0].add == chain.skips[0].first
    assert second.output == second.act == chain.tensor(2)
    assert chain.activation(0) is None and chain.activation(1) is None and chain.activation(2) == "relu"
    assert [chain.shape(index) for index in range(3)] == [(4, 8, 8)] * 3


def test_same_padding() -> None:
    network = found(lambda m, x: m.b(m.a(x)), a=conv(padding="same", dilation=2), b=conv(k=2, padding="same"))
    (chain,) = network.chains
    assert [layer.geometry.padding for layer in chain.layers] == [(2, 2, 2, 2), (0, 0, 1, 1)]
    assert geometry_of(conv(padding="valid")).padding == (0, 0, 0, 0)


# Skips


def test_a_sum_of_branches_is_taken_term_by_term() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return F.relu((m.p(x) + (x + m.n(x))) + m.b(x))

    (chain,) = chains(forward, a=conv(), b=conv(), p=conv(k=1), n=nn.BatchNorm2d(4))
    assert names(chain) == ["a", "b"] and ends(chain) == [(1, 2, "p"), (1, 2, None), (1, 2, "n")]
    assert set(chain.layers[1].adds) >= {skip.add for skip in chain.skips} and chain.layers[1].activation == "relu"


def test_a_norm_that_something_else_reads_is_no_skip() -> None:
    network = found(
        lambda m, x: m.c(m.b(y := F.relu(m.a(x))) + (z := m.n(y))) + z,
        n=nn.BatchNorm2d(4),
        a=conv(),
        b=conv(),
        c=conv(),
    )
    assert [names(chain) for chain in network.chains] == [["a"], ["b"], ["c"]]
    assert "also read by convolution b" in network.chains[0].reason


def test_a_projection_may_be_written_before_or_after_the_branch() -> None:
    def before(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        short = m.n(m.p(x))
        return F.relu(short + m.c(F.relu(m.b(x))))

    def after(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        y = m.c(F.relu(m.b(x)))
        return F.relu(y + m.n(m.p(x)))

    for forward in (before, after):
        (chain,) = chains(
            forward, a=conv(), b=conv(4, 8, stride=2), c=conv(8, 8), p=conv(4, 8, 1, stride=2), n=nn.BatchNorm2d(8)
        )
        assert names(chain) == ["a", "b", "c"] and ends(chain) == [(1, 3, "p")]
        (skip,) = chain.skips
        (unit,) = skip.units
        assert unit.bias and unit.norm == skip.operand and skip.geometry == Geometry(4, 8, (1, 1), (2, 2))


def test_of_two_single_convolutions_the_larger_is_the_layer() -> None:
    (chain,) = chains(lambda m, x: m.p(x) + m.a(x), a=conv(), p=conv(k=1))
    assert names(chain) == ["a"] and ends(chain) == [(0, 1, "p")]


def test_nested_skips_and_several_at_one_layer() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = F.relu(m.c(F.relu(m.b(y))) + y)
        return F.relu(m.d(z) + x + z)

    (chain,) = chains(forward, a=conv(), b=conv(), c=conv(), d=conv())
    assert ends(chain) == [(1, 3, None), (0, 4, None), (3, 4, None)]
    assert len(chain.layers[3].adds) == 2


@pytest.mark.parametrize(
    ("start", "end", "inside", "crosses"),
    [(2, 4, True, False), (1, 5, True, False), (3, 4, False, False), (2, 3, False, False), (3, 5, False, True),
     (1, 3, False, True), (0, 2, False, False), (4, 6, False, False), (2, 6, True, False)],
)  # fmt: skip
def test_how_a_block_meets_a_skip(start: int, end: int, inside: bool, crosses: bool) -> None:
    (chain,) = chains(lambda m, x: m.f(m.e(m.d(m.c(y := m.b(m.a(x)))) + y)), **{name: conv() for name in "abcdef"})
    (skip,) = chain.skips
    assert (skip.start, skip.end) == (2, 4)
    assert (skip.inside(start, end), skip.crosses(start, end)) == (inside, crosses)


def option_a(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return F.relu(m.c(F.relu(m.b(x))) + short)


def one_pixel(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(m.b(x)) + x  # stride 2 keeps 1x1 as it is


# Units that are no convolution module


def test_darknet_is_one_chain() -> None:
    (chain,) = load_network("timm:darknet53", None, (3, 64, 64)).chains
    assert len(chain) == 52 and len(chain.skips) == 23 and all(skip.late for skip in chain.skips)
    assert all(skip.add in chain.layers[skip.end - 1].late_adds for skip in chain.skips)


def test_a_skip_of_resnet_d() -> None:
    chain = load_network("timm:resnet26d", None, (3, 64, 64)).chains[1]
    pooled = [skip for skip in chain.skips if len(skip.units) == 2]
    assert len(pooled) == 3 and {skip.geometry.kernel for skip in pooled if skip.geometry} == {(2, 2)}
    assert all([unit.pooling for unit in skip.units] == [True, False] for skip in pooled)


def test_norms_before_convolutions_are_layers() -> None:
    network = load_network("timm:resnetv2_50", None, (3, 64, 64))
    chain = max(network.chains, key=len)
    alone = [layer for layer in chain.layers if layer.conv is None]
    assert len(chain.skips) == 16 and alone and all(layer.activation == "relu" for layer in alone)


def test_what_does_nothing_in_evaluation_breaks_no_chain() -> None:
    (chain,) = chains(lambda m, x: m.b(m.d(F.relu(m.n(m.d(m.a(x)))))), a=conv(), b=conv(), n=nn.BatchNorm2d(4),
        d=nn.Dropout())  # fmt: skip
    assert names(chain) == ["a", "b"] and chain.layers[0].norm and chain.layers[0].activation == "relu"


def test_a_pooling_by_itself_is_no_chain() -> None:
    (chain,) = chains(lambda m, x: F.max_pool2d(F.avg_pool2d(F.max_pool2d(m.a(x), 2), 2), 2), a=conv())
    assert names(chain) == ["a"]


# Why chains end


def upsampled(m: Any, x: Tensor) -> Tensor:
    return m.b(F.interpolate(m.a(x), scale_factor=2))


TWO = {"a": conv, "b": conv}
REASONS: dict[str, tuple[Callable[[Any, Tensor], Tensor], dict[str, Callable[[], nn.Module]], list[list[str]], str]] = {
    "read by others": (
        lambda m, x: m.b(y := m.a(x)) * y.sigmoid(),
        TWO,
        [["a"], ["b"]],
        "its output is also read by an activation shared with others (Sigmoid sigmoid)",
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
        "feeds convolution b, which cannot be merged: its weights are shared: it is called more than once",
    ),
    "shared norm": (lambda m, x: m.n(m.b(m.n(m.a(x)))), {**TWO, "n": lambda: nn.BatchNorm2d(4)}, [["a"], ["b"]],
        "feeds a batch norm: its weights are shared: it is called more than once (BatchNorm2d n)"),
    "shared activation": (lambda m, x: m.p(m.b(m.p(m.a(x)))), {**TWO, "p": nn.PReLU}, [["a"], ["b"]],
        "feeds an activation shared with others (PReLU p)"),
    "group norm": (lambda m, x: m.b((y := m.g(m.a(x))) + y.relu()), {**TWO, "g": lambda: nn.GroupNorm(2, 4)},
        [["a"], ["b"]], "feeds a group norm, whose statistics come from the data, so that it cannot be folded "
        "(GroupNorm g)"),
    "batch statistics": (lambda m, x: m.b(m.n(m.a(x))),
        {**TWO, "n": lambda: nn.BatchNorm2d(4, track_running_stats=False)}, [["a"], ["b"]],
        "feeds a batch norm without running statistics, whose statistics come from the data, so that it cannot be "
        "folded (batch_norm)"),
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
        "feeds a change of layout, as before a linear layer or a layer norm over channels (permute)"),
    "scale": (lambda m, x: m.b(m.a(x) * 0.5), TWO, [["a"], ["b"]],
        "feeds a product with a constant, which is linear, but not folded here (mul)"),
    "pixel shuffle": (lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), {"a": conv, "b": lambda: conv(1)}, [["a"], ["b"]],
        "feeds a pixel shuffle, which makes pixels of channels (pixel_shuffle)"),
    "computed weights": (lambda m, x: F.conv2d(m.a(x), m.b.weight * 2), TWO, [["a"]],
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
        "feeds a transposed convolution, which reads a grid finer than its input's (conv_transpose2d)"),
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
    assert ("b", "its weights are shared: it is called more than once") in [(b.after, b.reason) for b in network.breaks]


def test_a_skip_must_have_the_stride_of_what_it_leads_around() -> None:
    modules = {"a": conv(), "b": conv(stride=2), "c": conv()}
    network = trace("net", Net(one_pixel, **modules), (4, 1, 1))
    assert [names(chain) for chain in network.chains] == [["a"], ["b", "c"]]
    assert network.chains[1].reason == "adds a tensor of another stride (convolution a)"


def test_without_a_convolution_there_is_nothing_to_do() -> None:
    with pytest.raises(ModelError, match="no convolution to work on") as caught:
        trace("mlp", nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), (4, 1, 1))
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    with pytest.raises(ModelError, match="its weights are shared"):
        found(lambda m, x: m.a(m.a(x)), a=conv())


def test_finding_changes_nothing() -> None:
    module = normal_form(Net(option_a, a=conv(), b=conv(4, 8, stride=2), c=conv(8, 8)), (4, 8, 8))
    before = str(module.graph)
    assert find_chains(module) == find_chains(module) and str(module.graph) == before
