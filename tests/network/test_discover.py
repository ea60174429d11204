"""Chains and their layers: of networks that people know, and of small ones that are odd."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import GLOBAL, MAX, Net, chains, conv, ends, found, names, option_a
from trt_layermerge.errors import ExitCode, ModelError
from trt_layermerge.network.discover import find_chains
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import load_network, trace
from trt_layermerge.network.padding import geometry_of
from trt_layermerge.network.trace import normal_form

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist" / "model.py"


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
