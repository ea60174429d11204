"""Frames and windows that are folded into the batch: what runs at a multiple of it is timed at that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.network.written import Net, conv
from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.cost import Setting, signatures
from trt_layermerge.network.count import size_of
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import trace


def body(m: Any, x: Tensor) -> Tensor:
    return m.b(m.a(x).relu())


def windows(m: Any, x: Tensor) -> Tensor:
    x = x.view(-1, 4, 2, 4, 2, 4).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, 4, 4)
    return body(m, x).mean((2, 3)).view(-1, 4, 4).mean(1)


def clips(m: Any, x: Tensor) -> Tensor:
    b = x.shape[0]
    return body(m, x.view(b * 2, 2, 8, 8)).mean((2, 3)).view(b, 2, -1).mean(1)


FOLDED: dict[str, tuple[Callable[[Any, Tensor], Tensor], int, int]] = {
    "clips": (clips, 2, 2),
    "flattened": (lambda m, x: body(m, x.unflatten(1, (2, 2)).flatten(0, 1)).unflatten(0, (-1, 2)).sum(1), 2, 2),
    "time first": (
        lambda m, x: body(m, x.view(-1, 2, 2, 8, 8).transpose(0, 1).reshape(-1, 2, 8, 8)).view(2, -1, 4, 8, 8).mean(0),
        2,
        2,
    ),
    "windows": (windows, 4, 4),
    "each channel by itself": (lambda m, x: body(m, x.reshape(-1, 1, 8, 8)).reshape(-1, 4, 4, 8, 8).sum(1), 1, 4),
    "flipped beside itself": (lambda m, x: sum(body(m, torch.cat([x, x.flip(-1)])).chunk(2)), 4, 2),
    "not at all": (body, 4, 1),
}


@pytest.mark.parametrize(("forward", "channels", "multiple"), FOLDED.values(), ids=FOLDED.keys())
def test_signatures_have_the_batch_that_their_operations_run_at(
    forward: Callable[[Any, Tensor], Tensor], channels: int, multiple: int
) -> None:
    torch.manual_seed(0)
    source = Net(forward, a=conv(channels, 4), b=conv())
    seen: list[int] = []
    hook = source.b.register_forward_hook(lambda _m, _x, y: seen.append(len(y)))
    source(torch.randn(3, 4, 8, 8))
    hook.remove()
    assert seen == [3 * multiple]
    network = trace("net", source, (4, 8, 8))
    (chain,) = network.chains
    assert [layer.name for layer in chain.layers] == ["a", "b"] and chain.multiple == multiple
    costs = {cost for choice in choices_of(network) for cost in signatures(network, choice, Setting(3))}
    assert {cost.batch for cost in costs} == {3 * multiple}
    x = torch.randn(5, 4, 8, 8)
    torch.testing.assert_close(network.module(x), source(x))


def test_inputs_may_be_stacked_in_the_batch() -> None:
    """As the two views of a stereo network are."""

    class Stereo(Net):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
            one, other = body(self, torch.cat([left, right])).chunk(2)
            return self.c(one - other)

    torch.manual_seed(0)
    source = Stereo(body, a=conv(), b=conv(), c=conv())
    network = trace("net", source, [Input(name, (4, 8, 8)) for name in ("left", "right")])
    assert {layer.name: chain.multiple for chain in network.chains for layer in chain.layers} == {
        "a": 2,
        "b": 2,
        "c": 1,
    }
    views = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    torch.testing.assert_close(network.module(*views), source(*views))


def test_frames_count_for_the_memory_of_activations() -> None:
    torch.manual_seed(0)
    one, two = (trace("net", Net(f, a=conv(c), b=conv()), (4, 8, 8)) for f, c in ((body, 4), (clips, 2)))
    assert size_of(two.module).peak_bytes == 2 * 2 * 4 * 64 * 4 > size_of(one.module).peak_bytes - 1


def test_what_has_no_batch_is_in_no_chain() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        template = m.b(m.template)  # the same for every sample
        return m.a(x) * template

    class Held(Net):
        def __init__(self) -> None:
            super().__init__(forward, a=conv(), b=conv())
            self.template = nn.Parameter(torch.randn(1, 4, 8, 8))

    network = trace("net", Held(), (4, 8, 8))
    assert [layer.name for layer in network.layers] == ["a"]
