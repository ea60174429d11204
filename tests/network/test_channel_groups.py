"""Which channels stand and fall together, and why others must stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import conv, found
from trt_layermerge.network.channel_group import ChannelGroup
from trt_layermerge.network.network import Network, load_network

ROOT = Path(__file__).parents[2]


def only(network: Network) -> ChannelGroup:
    (group,) = network.channel_groups
    return group


def reasons(network: Network) -> set[str]:
    return {fixed.reason for fixed in network.fixed_channels}


def test_an_inner_tensor_stands_alone_and_the_last_one_is_returned() -> None:
    network = found(lambda m, x: m.b(F.relu(m.a(x))), a=conv(4, 6), b=conv(6))
    assert only(network) == ChannelGroup(0, 6, ("a",), ("b",), ("relu",), ((0, 1),))
    (fixed,) = network.fixed_channels
    assert (fixed.producers, fixed.tensors, fixed.reason) == (("b",), ((0, 2),), "the network returns them")


def test_a_depthwise_convolution_its_norms_and_activations_pass_channels_on() -> None:
    network = found(
        lambda m, x: m.c(m.p(m.n(m.b(m.m(m.a(x)))))),
        a=conv(4, 6), m=nn.BatchNorm2d(6), b=conv(6, 6, groups=6), n=nn.BatchNorm2d(6), p=nn.PReLU(6), c=conv(6),
    )  # fmt: skip
    assert only(network).through == ("m", "b", "n", "p") and only(network).consumers == ("c",)


def test_a_residual_stream_is_one_group_with_its_projection() -> None:
    def stage(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.b(F.relu(m.a(x))) + m.s(x))
        return F.adaptive_avg_pool2d(F.relu(m.d(F.relu(m.c(x))) + x), 1).flatten(1)

    layers = {"a": conv(4, 6), "b": conv(6, 8), "s": conv(4, 8, 1), "c": conv(8, 6), "d": conv(6, 8)}
    network = found(lambda m, x: m.l(stage(m, x)), **layers, l=nn.Linear(8, 3))
    first, stream, inner = sorted(network.channel_groups, key=lambda group: group.producers)
    assert [(one.producers, one.consumers) for one in (first, inner)] == [(("a",), ("b",)), (("c",), ("d",))]
    assert set(stream.producers) == {"b", "s", "d"} and stream.consumers == ("c", "l")
    assert stream.tensors == ((0, 2), (0, 4)) and {"relu_1", "flatten_using_ints"} <= set(stream.through)


def test_a_gate_belongs_to_what_it_multiplies() -> None:
    def gated(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        return m.b(x * torch.sigmoid(m.g(F.relu(m.f(x.mean((2, 3), keepdim=True))))))

    network = found(gated, a=conv(4, 8), f=conv(8, 2, 1), g=conv(2, 8, 1), b=conv(8))
    image, squeezed = network.channel_groups
    assert (image.producers, image.consumers) == (("a", "g"), ("f", "b"))
    assert (squeezed.channels, squeezed.producers, squeezed.consumers) == (2, ("f",), ("g",))


BY_NUMBER: dict[str, Callable[[Tensor], Tensor]] = {
    "a hard sigmoid of another slope": lambda x: torch.clamp(0.2 * x + 0.5, 0, 1),
    "a softplus": lambda x: torch.log1p(torch.exp(-x.abs())) + torch.clamp_min(x, 0),
    "a square root": lambda x: (x**2 + 1).sqrt().reciprocal(),
}


@pytest.mark.parametrize("gate", BY_NUMBER.values(), ids=BY_NUMBER)
def test_a_gate_of_functions_that_are_no_layer_belongs_to_it_too(gate: Callable[[Tensor], Tensor]) -> None:
    def gated(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        return m.b(x * gate(m.g(F.relu(m.f(x.mean((2, 3), keepdim=True))))))

    network = found(gated, a=conv(4, 8), f=conv(8, 2, 1), g=conv(2, 8, 1), b=conv(8))
    assert [group.producers for group in network.channel_groups] == [("a", "g"), ("f",)]


def test_a_linear_gate_too() -> None:
    def gated(m: nn.Module, x: Tensor) -> Tensor:
        x = F.relu(m.a(x))
        gate = torch.sigmoid(m.g(F.relu(m.f(x.mean((2, 3))))))
        return m.b(x * gate[:, :, None, None]) + m.c(x * gate.view(-1, 8, 1, 1))

    layers = {"a": conv(4, 8), "f": nn.Linear(8, 2), "g": nn.Linear(2, 8), "b": conv(8), "c": conv(8)}
    assert [group.producers for group in found(gated, **layers).channel_groups] == [("a", "g"), ("f",)]


def test_a_flat_image_is_read_channel_after_channel() -> None:
    network = found(lambda m, x: m.l(F.max_pool2d(m.a(x), 2).flatten(1)), a=conv(4, 6), l=nn.Linear(6 * 16, 3))
    assert only(network).consumers == ("l",) and only(network).channels == 6


def shuffled(m: nn.Module, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.b(x.view(-1, 2, 2, 8, 8).transpose(1, 2).reshape(-1, 4, 8, 8))


FIXED: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], dict[str, nn.Module], str]] = {
    "concatenated": (
        lambda m, x: m.b(torch.cat([x, m.a(x)], 1)), {"a": conv(), "b": conv(8)}, "they are concatenated with others"
    ),
    "grouped": (lambda m, x: m.b(m.a(x)), {"a": conv(), "b": conv(groups=2)}, "a grouped convolution"),
    "multiplied": (lambda m, x: m.b(m.a(x)), {"a": conv(), "b": conv(4, 8, groups=4)}, "a grouped convolution"),
    "shuffled": (shuffled, {"a": conv(), "b": conv()}, "they are reshaped"),
    "split": (lambda m, x: m.b(m.a(x)[:, :2]), {"a": conv(), "b": conv(2)}, "they are split"),
    "added to the input": (lambda m, x: m.b(m.a(x) + x), {"a": conv(), "b": conv()}, "the network is given them"),
    "shared": (lambda m, x: m.a(F.relu(m.a(m.b(x)))), {"a": conv(), "b": conv()}, "its weights are shared"),
    "group norm": (lambda m, x: m.b(m.n(m.a(x))), {"a": conv(), "n": nn.GroupNorm(2, 4), "b": conv()}, "a group norm"),
    "one channel": (lambda m, x: m.b(m.a(x)), {"a": conv(4, 1), "b": conv(1)}, "there is only one"),
    "mean over channels": (
        lambda m, x: m.b((y := m.a(x)) * y.mean(1, keepdim=True)), {"a": conv(), "b": conv()}, "mean reads them"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_what_must_stay_says_why(name: str) -> None:
    function, modules, reason = FIXED[name]
    network = found(function, **modules)
    assert any(reason in told for told in reasons(network)), reasons(network)
    assert not any("a" in group.producers for group in network.channel_groups)


@pytest.mark.parametrize(("spec", "groups"), [("resnet20", 12), ("vgg16", 13)])
def test_all_but_the_classifier_of_a_plain_network_can_be_narrowed(spec: str, groups: int) -> None:
    file = "vgg" if spec == "vgg16" else "model"
    network = load_network(f"{ROOT}/examples/fashion_mnist/{file}.py:{spec}")
    assert len(network.channel_groups) == groups and reasons(network) == {"the network returns them"}
    tensors = [tensor for group in network.channel_groups for tensor in group.tensors]
    assert len(tensors) == len(set(tensors)), "a tensor is in one group"


def test_groups_of_published_networks() -> None:
    mobile = load_network("torchvision:mobilenet_v2", None, (3, 32, 32))
    assert len(mobile.channel_groups) == 17 + 8, "between expansion and projection, and the streams of the stages"
    dense = load_network("torchvision:densenet121", None, (3, 32, 32))
    assert len(dense.channel_groups) == 58 and "they are concatenated with others" in reasons(dense)
