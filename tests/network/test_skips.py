"""What leads around layers of a chain."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from tests.network.written import chains, conv, ends, found, names
from trt_layermerge.network.geometry import Geometry


def test_a_sum_of_branches_is_taken_term_by_term() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        return F.relu((m.p(x) + (x + m.n(x))) + m.b(x))

    (chain,) = chains(forward, a=conv(), b=conv(), p=conv(k=1), n=nn.BatchNorm2d(4))
    assert names(chain) == ["a", "b"] and ends(chain) == [(1, 2, "p"), (1, 2, None), (1, 2, "n")]
    assert set(chain.layers[1].adds) >= {skip.add for skip in chain.skips} and chain.layers[1].activation == "relu"


def test_a_norm_that_something_else_reads_is_no_skip() -> None:
    network = found(
        lambda m, x: m.c(m.b(y := F.relu(m.a(x))) + (z := m.n(y))) + z,
        n=nn.BatchNorm2d(4),
        a=conv(),
        b=conv(),
        c=conv(),
    )
    assert [names(chain) for chain in network.chains] == [["a"], ["b"], ["c"]]
    assert "also read by convolution b" in network.chains[0].reason


def test_a_projection_may_be_written_before_or_after_the_branch() -> None:
    def before(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        short = m.n(m.p(x))
        return F.relu(short + m.c(F.relu(m.b(x))))

    def after(m: Any, x: Tensor) -> Tensor:
        x = m.a(x)
        y = m.c(F.relu(m.b(x)))
        return F.relu(y + m.n(m.p(x)))

    for forward in (before, after):
        (chain,) = chains(
            forward, a=conv(), b=conv(4, 8, stride=2), c=conv(8, 8), p=conv(4, 8, 1, stride=2), n=nn.BatchNorm2d(8)
        )
        assert names(chain) == ["a", "b", "c"] and ends(chain) == [(1, 3, "p")]
        (skip,) = chain.skips
        (unit,) = skip.units
        assert unit.bias and unit.norm == skip.operand and skip.geometry == Geometry(4, 8, (1, 1), (2, 2))


def test_of_two_single_convolutions_the_larger_is_the_layer() -> None:
    (chain,) = chains(lambda m, x: m.p(x) + m.a(x), a=conv(), p=conv(k=1))
    assert names(chain) == ["a"] and ends(chain) == [(0, 1, "p")]


def test_nested_skips_and_several_at_one_layer() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = F.relu(m.c(F.relu(m.b(y))) + y)
        return F.relu(m.d(z) + x + z)

    (chain,) = chains(forward, a=conv(), b=conv(), c=conv(), d=conv())
    assert ends(chain) == [(1, 3, None), (0, 4, None), (3, 4, None)]
    assert len(chain.layers[3].adds) == 2


@pytest.mark.parametrize(
    ("start", "end", "inside", "crosses"),
    [(2, 4, True, False), (1, 5, True, False), (3, 4, False, False), (2, 3, False, False), (3, 5, False, True),
     (1, 3, False, True), (0, 2, False, False), (4, 6, False, False), (2, 6, True, False)],
)  # fmt: skip
def test_how_a_block_meets_a_skip(start: int, end: int, inside: bool, crosses: bool) -> None:
    (chain,) = chains(lambda m, x: m.f(m.e(m.d(m.c(y := m.b(m.a(x)))) + y)), **{name: conv() for name in "abcdef"})
    (skip,) = chain.skips
    assert (skip.start, skip.end) == (2, 4)
    assert (skip.inside(start, end), skip.crosses(start, end)) == (inside, crosses)
