"""Who reads the parameters of a layer: nothing is folded into what something else reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import Net, conv
from trt_layermerge.errors import ModelError
from trt_layermerge.merging.fold import fold_norms, norm_pairs
from trt_layermerge.network.network import trace
from trt_layermerge.network.placing import common_owner, reader_counts
from trt_layermerge.network.trace import normal_form


def with_norms(forward: Callable[[Any, Tensor], Tensor], share: str = "") -> nn.Module:
    torch.manual_seed(0)
    parts = {name: conv() for name in "abc"} | {name: nn.BatchNorm2d(4) for name in ("n", "o")}
    source = Net(forward, **parts)
    for norm in (source.n, source.o):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    if share:
        one, other, name = share.split()
        setattr(source.get_submodule(other), name, getattr(source.get_submodule(one), name))
    return source.eval()


def chain(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.o(m.b(F.relu(m.n(m.a(x)))))))


SHARED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "one filter at two dilations": (lambda m, x: F.conv2d(chain(m, x), m.a.weight, None, 1, 2, 2), ""),
    "one filter with another bias": (lambda m, x: F.conv2d(chain(m, x), m.a.weight, m.b.bias, 1, 1), ""),
    "a filter transposed": (lambda m, x: F.conv_transpose2d(chain(m, x), m.a.weight, padding=1), ""),
    "a layer twice": (lambda m, x: m.a(chain(m, x)), ""),
    "a norm twice": (lambda m, x: m.n(m.c(m.b(m.n(m.a(x))))), ""),
    "tied filters": (chain, "a b weight"),
    "tied biases": (chain, "a b bias"),
    "tied norms": (chain, "n o weight"),
    "tied statistics": (chain, "n o running_mean"),
    "a filter read by a loss": (lambda m, x: chain(m, x) * m.a.weight.square().sum().sqrt(), ""),
    "a norm's weight read": (lambda m, x: chain(m, x) * m.n.weight.view(1, -1, 1, 1).sigmoid() + x, ""),
    "a bias read as a bias of another": (lambda m, x: F.conv2d(chain(m, x), m.b.weight, m.a.bias, 1, 1), ""),
}


@pytest.mark.parametrize(("forward", "share"), SHARED.values(), ids=SHARED.keys())
def test_folding_norms_leaves_what_others_read(forward: Callable[[Any, Tensor], Tensor], share: str) -> None:
    source = with_norms(forward, share)
    module = normal_form(source, (4, 8, 8))
    x = torch.randn(3, 4, 8, 8)
    with torch.no_grad():
        expected = source(x)
        for found in (module, fold_norms(module)):
            torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    counts = reader_counts(module)
    assert all(counts[str(conv.target)] == counts[str(norm.target)] == 1 for conv, norm in norm_pairs(module))


@pytest.mark.parametrize(("forward", "share"), SHARED.values(), ids=SHARED.keys())
def test_layers_of_chains_have_their_weights_for_themselves(
    forward: Callable[[Any, Tensor], Tensor], share: str
) -> None:
    try:
        network = trace("net", with_norms(forward, share), (4, 8, 8))
    except ModelError as error:
        assert "its weights are shared" in str(error)
        return
    counts = reader_counts(network.module)
    for layer in network.layers:
        assert counts[layer.name] == 1


def test_what_is_read_by_its_layer_alone_is_folded() -> None:
    module = normal_form(with_norms(chain), (4, 8, 8))
    assert [str(norm.target) for _, norm in norm_pairs(module)] == ["n", "o"]


def test_owners() -> None:
    assert common_owner(["a.b.weight", "a.b.bias"]) == "a.b" and common_owner(["a.b.weight", "a.c.weight"]) == "a"
    assert common_owner(["a.parametrizations.weight.original", "a.parametrizations.weight.0._u"]) == "a"
    assert common_owner(["weight", "a.bias"]) == common_owner([]) == ""
