from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.merging.original_values import PLACES, OriginalValues
from trt_layermerge.network.cut import up_to
from trt_layermerge.network.network import Network, trace


class Residual(nn.Module):
    """Skips, a branch and a head: places from which the network cannot be gone on with alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(i, 4, 3, padding=1) for i in (3, 4, 4))
        self.beside, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        start = self.stem(x).relu()
        y = self.second(self.first(start).relu()) + self.beside(start)
        return self.head((y.relu() + start).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return trace("residual", Residual().eval(), (3, 6, 5))


DATA = [torch.randn(size, 3, 6, 5, generator=torch.Generator().manual_seed(size)) for size in (3, 1, 4)]


def batches() -> Iterator[tuple[Tensor, ...]]:
    return ((batch,) for batch in DATA)


def places(network: Network) -> list[str]:
    return [node.name for node in network.module.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]


@given(data=st.data(), memory=st.sampled_from([0, 2000, 1 << 30]))
def test_they_are_those_of_a_pass_from_the_start(network: Network, data: st.DataObject, memory: int) -> None:
    values = OriginalValues(network.module, batches, memory)
    with torch.no_grad():
        for name in data.draw(st.lists(st.sampled_from(places(network)), min_size=1, max_size=5)):
            found = list(values.at(name))
            expected = [up_to(network.module, [name])(*batch)[0] for batch in batches()]
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
            assert len(values._kept) <= PLACES
            assert sum(value.nbytes for one in values._kept.values() for value in one) <= memory


def test_what_has_been_computed_is_gone_on_from(network: Network) -> None:
    calls: list[str] = []
    for name, part in network.module.named_modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))  # type: ignore[misc]
    values = OriginalValues(network.module, batches, 1 << 30)
    with torch.no_grad():
        for name in places(network):
            list(values.at(name))
    assert calls.count("first") == calls.count("second") == len(DATA)


def test_a_pass_that_is_broken_off_leaves_nothing(network: Network) -> None:
    values = OriginalValues(network.module, batches, 1 << 30)
    first, *_ = places(network)
    next(values.at(first))
    assert not values._kept
