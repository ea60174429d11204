"""Networks written as functions, and what is found in them, in short."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.network.chain import Chain
from trt_layermerge.network.network import Network, trace

GLOBAL = "feeds global average pooling, behind which no image is left (adaptive_avg_pool2d)"
MAX = "feeds max pooling, which is not linear (max_pool2d)"


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


def option_a(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    return F.relu(m.c(F.relu(m.b(x))) + short)
