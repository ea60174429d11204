"""Small networks for the blocks' tests: a chain by a list of convolutions and a list of skips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from trt_layermerge.network.network import Network


class ChainNet(nn.Module):
    """Convolutions in a row; ``skips`` maps (start, end) to a projection or None."""

    def __init__(
        self,
        convs: Sequence[nn.Module],
        skips: Mapping[tuple[int, int], nn.Module | None],
        acts: Mapping[int, nn.Module],
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.ends = list(skips)
        self.projections = nn.ModuleList(nn.Identity() if skip is None else skip for skip in skips.values())
        self.plain = [skip is None for skip in skips.values()]
        self.acts = nn.ModuleDict({str(index): act for index, act in acts.items()})

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for index, conv in enumerate(self.convs, 1):
            y = conv(tensors[-1])
            for (start, end), projection, plain in zip(self.ends, self.projections, self.plain, strict=True):
                if end == index:
                    y = y + (tensors[start] if plain else projection(tensors[start]))
            tensors.append(self.acts[str(index)](y) if str(index) in self.acts else y)
        return tensors[-1]


Make = Callable[..., Network]


@pytest.fixture(scope="session")
def make(quick: Callable[[nn.Module, tuple[int, ...]], Network]) -> Make:
    def network(
        convs: Sequence[nn.Module],
        skips: Mapping[tuple[int, int], nn.Module | None] | None = None,
        acts: Mapping[int, nn.Module] | None = None,
        size: int = 16,
    ) -> Network:
        torch.manual_seed(0)
        first = convs[0]
        assert isinstance(first, nn.Conv2d)
        return quick(ChainNet(convs, skips or {}, acts or {}), (first.in_channels, size, size))

    return network
