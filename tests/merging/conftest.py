"""Random networks: any kernel, stride, dilation and grouping, nested skips, projections, norms, poolings, dropout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.network.network import Network

SHAPE = (4, 17, 15)


class Residual(nn.Module):
    """``act(body(x) + skip(x))``, or ``act(body(x)) + skip(x)``."""

    def __init__(self, body: nn.Module, skip: nn.Module, act: nn.Module, late: bool) -> None:
        super().__init__()
        self.body, self.skip, self.act, self.late = body, skip, act, late

    def forward(self, x: Tensor) -> Tensor:
        if self.late:
            return self.act(self.body(x)) + self.skip(x)
        return self.act(self.body(x) + self.skip(x))


@st.composite
def units(draw: st.DrawFn, channels: tuple[int, int], stride: int = 1, same: bool = True) -> nn.Sequential:
    """A convolution with or without norm; ``same`` keeps the size but for the stride."""
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 1), (1, 5)] if same else [(1, 1), (2, 2), (3, 2), (1, 4)]))
    dilation = draw(st.sampled_from([1, 1, 2])) if same else 1
    padding = tuple(dilation * (k - 1) // 2 for k in kernel) if same else (draw(st.integers(0, 1)), 0)
    groups = draw(st.sampled_from([g for g in (1, 1, 2, 4) if channels[0] % g == 0 == channels[1] % g]))
    layers: list[nn.Module] = [
        nn.Conv2d(*channels, kernel, stride, padding, dilation, groups, bias=draw(st.booleans())),
    ]
    if draw(st.booleans()):
        layers.append(nn.BatchNorm2d(channels[1], eps=draw(st.sampled_from([1e-5, 1e-3]))))
    return nn.Sequential(*layers)


@st.composite
def residuals(draw: st.DrawFn, stride: int = 1, depth: int = 0) -> nn.Module:
    """A residual block on four channels; inside the first one there may be another."""
    projected = stride > 1 or draw(st.booleans())
    body: list[nn.Module] = [draw(units((4, 4), stride)), nn.ReLU()]
    if depth == 0 and draw(st.booleans()):
        body.append(draw(residuals(1, 1)))
    if draw(st.booleans()):
        body.append(draw(units((4, 4))))
    elif len(body) == 2:
        del body[1]  # an activation just before the addition would end the chain
    else:
        body += [draw(units((4, 6))), nn.ReLU(), draw(units((6, 4)))]
    act = draw(st.sampled_from([nn.ReLU, nn.PReLU, nn.Identity]))()
    skip: list[nn.Module] = [nn.Conv2d(4, 4, 1, stride)] if projected else []
    if stride == 2 and draw(st.booleans()):
        skip = [nn.AvgPool2d(3, 2, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)]
    if draw(st.booleans()):
        body.append(nn.Dropout())
    return Residual(nn.Sequential(*body), nn.Sequential(*skip), act, draw(st.booleans()))


@st.composite
def others(draw: st.DrawFn, stride: int = 1) -> list[nn.Module]:
    """What is no convolution, but linear: a pooling or a norm by itself, dropout in front of it."""
    if stride > 1 or draw(st.booleans()):
        other: nn.Module = nn.AvgPool2d(draw(st.sampled_from([2, 3])), stride, draw(st.integers(0, 1)))
    else:
        other = nn.BatchNorm2d(4)
    return [nn.Dropout(), other, *([nn.ReLU()] if draw(st.booleans()) else [])]


@st.composite
def random_modules(draw: st.DrawFn) -> nn.Module:
    """Two to four pieces on ``[4, 17, 15]``, one of them with a stride."""
    pieces: list[nn.Module] = []
    strided = draw(st.integers(0, 3))
    for number in range(draw(st.integers(1, 3))):
        stride = 2 if number == strided else 1
        kind = draw(st.sampled_from(["residual", "unit", "other"]))
        if kind == "residual":
            pieces.append(draw(residuals(stride)))
        elif kind == "other":
            pieces += draw(others(stride))
        else:
            pieces += [draw(units((4, 4), stride, draw(st.booleans()))), nn.ReLU()]
    pieces.append(draw(units((4, 4))))
    module = nn.Sequential(*pieces)
    randomise(module, draw(st.integers(0, 2**16)))
    return module


def randomise(module: nn.Module, seed: int) -> None:
    """Weights that keep activations near 1, and statistics as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.weight.normal_(0, part.weight[0].numel() ** -0.5, generator=generator)
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)


def anew(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with all its weights drawn again, whatever drew them before."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.reset_parameters()
    randomise(module, seed)
    return module


@pytest.fixture(scope="session")
def networks(quick) -> st.SearchStrategy[Network]:
    """Small networks with everything that a chain may have."""
    return random_modules().map(lambda module: quick(module, SHAPE))


@pytest.fixture(scope="session")
def plans():
    """Makes a strategy of feasible plans of a network: ways to tile its chains with its choices."""

    @st.composite
    def plan(draw: st.DrawFn, network: Network, kinds: str = "keep merge identity fit") -> tuple[Choice, ...]:
        choices = [
            choice
            for choice in choices_of(network, Limits(9, 6, bottleneck_activations=True))
            if choice.kind in kinds.split()
        ]
        taken: list[Choice] = []
        for chain in network.chains:
            at = 0
            while at < len(chain):
                here = [c for c in choices if (c.block.chain, c.block.start) == (chain.index, at)]
                taken.append(draw(st.sampled_from(here)))
                at = taken[-1].block.end
        return tuple(taken)

    return plan


@pytest.fixture(scope="session")
def images():
    """Makes a batch of noise."""

    def make(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    return make
