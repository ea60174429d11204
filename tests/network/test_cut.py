from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.network.cut import onward, up_to
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import Network, trace

Quick = Callable[[nn.Module, tuple[int, ...]], Network]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.norm, self.act, self.p = nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.a(x)))
        y = self.c(self.b(y)) + self.p(y)
        return self.d(y) + x


@pytest.fixture(scope="module")
def network(quick: Quick) -> Network:
    torch.manual_seed(0)
    return quick(Residual(), (4, 8, 8))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, 8, 8)


@pytest.mark.parametrize("index", range(5))
def test_up_to_a_tensor_and_onward_is_the_whole(network: Network, x: Tensor, index: int) -> None:
    name, inputs = network.chains[0].tensor(index), network.chains[0].tensor(0)
    known = [name, inputs]
    rest, needed = onward(network.module, known)
    given = up_to(network.module, needed)(x)
    torch.testing.assert_close(rest(*given), network.module(x), rtol=0, atol=0)
    assert set(needed) <= set(known)


def test_what_is_known_but_not_needed_is_not_asked_for(network: Network) -> None:
    chain = network.chains[0]
    rest, needed = onward(network.module, [chain.tensor(index) for index in range(4)])
    assert set(needed) == {chain.tensor(0), chain.tensor(3)}
    targets = {str(node.target) for node in rest.graph.nodes if node.op == "call_module"}
    assert targets == {"d"} and not hasattr(rest, "a")


def test_the_networks_input_comes_last_where_it_is_not_known(network: Network, x: Tensor) -> None:
    rest, needed = onward(network.module, [network.chains[0].tensor(3)])
    torch.testing.assert_close(rest(*up_to(network.module, needed)(x), x), network.module(x), rtol=0, atol=0)


def test_parts_share_their_weights_and_leave_the_whole_alone(network: Network, x: Tensor) -> None:
    before = str(network.module.graph)
    part = up_to(network.module, [network.chains[0].tensor(1)])
    assert part.get_parameter("a.weight") is network.module.get_parameter("a.weight")
    assert str(network.module.graph) == before and not hasattr(part, "b")
    (y,) = part(x)
    torch.testing.assert_close(y, network.module.act(network.module.norm(network.module.a(x))))


def test_several_values_come_in_the_order_asked_for(network: Network, x: Tensor) -> None:
    chain = network.chains[0]
    late, early = up_to(network.module, [chain.tensor(4), chain.tensor(0)])(x)
    assert early is x
    torch.testing.assert_close(late, network.module(x))


class Attending(nn.Module):
    """Two inputs, and attention, which is no random operation as long as it drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        tokens = self.a(x).flatten(2)
        y = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).reshape(x.shape)
        return self.b(y * scale[:, None, None, None])


def test_several_inputs_are_taken_and_attention_that_is_known_is_not_computed_again(x: Tensor) -> None:
    network = trace("attending", Attending(), (Input("x", (4, 8, 8)), Input("scale", (), below=9)))
    scale = torch.tensor([2, 5])
    start = network.chains[-1].tensor(0)
    rest, needed = onward(network.module, [start])
    assert needed == (start,)
    assert [str(node.target) for node in rest.graph.nodes if node.op == "call_module"] == ["b"]
    torch.testing.assert_close(rest(*up_to(network.module, needed)(x, scale)), network.module(x, scale))
