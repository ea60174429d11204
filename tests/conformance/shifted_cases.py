"""Networks with norms in front of their layers and shifts by a vector, of one chain each, and choices of a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice
from trt_layermerge.network.inputs import Input
from trt_layermerge.network.network import Network

TWO = (Input("x", (4, 9, 7)), Input("t", (6,)))


class Net(nn.Module):
    """A function of itself, an image and a vector; ``s`` is the vector's projection."""

    def __init__(self, function: Callable[[Any, Tensor, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.function(self, x, t)


def conv(i: int = 4, o: int = 4, k: int = 3, **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=kwargs.pop("padding", k // 2), **kwargs)


def projected(m: Any, t: Tensor) -> Tensor:
    return m.s(t)[:, :, None, None]


@dataclass(frozen=True)
class Case:
    """A network of one chain.

    Attributes:
        build: Makes it.
        layers: Of its chain: which have a pre-norm, and which a shift, by their numbers.
    """

    build: Callable[[], nn.Module]
    pre_norms: tuple[int, ...] = ()
    shifts: tuple[int, ...] = ()


def case(function: Callable[[Any, Tensor, Tensor], Tensor], pre_norms: tuple[int, ...] = (),
         shifts: tuple[int, ...] = (), **modules: Callable[[], nn.Module]) -> Case:  # fmt: skip
    return Case(lambda: Net(function, **{name: make() for name, make in modules.items()}), pre_norms, shifts)


def two_residuals(m: Any, x: Tensor, t: Tensor) -> Tensor:
    y = m.b(F.silu(m.n2(m.a(F.silu(m.n1(x))) + projected(m, t)))) + x
    return m.d(F.silu(m.n4(m.c(F.silu(m.n3(y))) + projected(m, t)))) + m.p(y)


def norm(channels: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.GroupNorm(2, channels)


S = {"s": lambda: nn.Linear(6, 4)}
CASES = {
    "a shift through a kernel": case(
        lambda m, x, t: m.b(F.relu(m.a(x) + projected(m, t))), shifts=(1,), a=conv, b=conv, **S
    ),
    "a shift through two kernels, stride and dilation": case(
        lambda m, x, t: m.c(F.relu(m.b(F.relu(m.a(x) + projected(m, t))))),
        shifts=(1,),
        a=lambda: conv(stride=2),
        b=lambda: conv(dilation=2, padding=2),
        c=lambda: conv(o=6, k=5),
        **S,
    ),
    "a shift through groups": case(
        lambda m, x, t: m.c(m.b(m.a(x) + projected(m, t)).relu()),
        shifts=(1,),
        a=conv,
        b=lambda: conv(groups=4),
        c=lambda: conv(groups=2),
        **S,
    ),
    "a shift before a batch norm": case(
        lambda m, x, t: m.b(F.relu(m.n(m.a(x) + projected(m, t)))),
        shifts=(1,),
        a=conv,
        b=conv,
        n=lambda: nn.BatchNorm2d(4),
        **S,
    ),
    "shifts of two layers": case(
        lambda m, x, t: m.c(m.b((m.a(x) + projected(m, t)).relu()) + projected(m, 2 * t)),
        shifts=(1, 2),
        a=conv,
        b=conv,
        c=conv,
        **S,
    ),
    "a shift around a skip": case(
        lambda m, x, t: m.c(F.relu(m.b(F.relu(m.a(x) + projected(m, t))) + m.p(x))),
        shifts=(1,),
        a=conv,
        b=conv,
        c=conv,
        p=lambda: conv(k=1),
        **S,
    ),
    "a skip from what is shifted": case(
        lambda m, x, t: m.c((m.b(y := m.a(x) + projected(m, t)) + y).relu()), shifts=(1,), a=conv, b=conv, c=conv, **S
    ),
    "uneven padding behind a shift": case(
        lambda m, x, t: m.b(F.pad(F.relu(m.a(x) + projected(m, t)), (0, 1, 0, 1))),
        shifts=(1,),
        a=conv,
        b=lambda: conv(stride=2, padding=0),
        **S,
    ),
    "a pre-norm with no activation": case(
        lambda m, x, t: m.b(m.n(m.a(x))), pre_norms=(2,), a=conv, b=conv, n=norm(), **S
    ),
    "norms of other widths": case(
        lambda m, x, t: m.b(F.silu(m.n2(m.a(F.silu(m.n1(x)))))),
        pre_norms=(1, 2),
        a=lambda: conv(o=6),
        b=lambda: conv(6, 4),
        n1=norm(),
        n2=norm(6),
        **S,
    ),
    "two blocks of DDPM in a row": case(
        two_residuals,
        pre_norms=(1, 2, 3, 4),
        shifts=(1, 3),
        **{name: conv for name in "abcd"},
        **{f"n{i}": norm() for i in range(1, 5)},
        p=lambda: conv(k=1),
        **S,
    ),
}


def randomise(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)


def choice(network: Network, key: str, kept: tuple[int, ...]) -> Choice:
    (found,) = [item for item in choices_of(network) if item.key == key and item.kept == kept]
    return found
