from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from torch import nn

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.lowering import lower
from trt_layermerge.network.network import Network

Make = Callable[..., Network]


@dataclass(frozen=True)
class Words:
    """A map as text: what is done in a row, and what is added."""

    text: str

    def then(self, second: Words) -> Words:
        return Words(f"{self.text}{second.text}")

    def beside(self, other: Words) -> Words:
        return Words(f"({self.text}+{other.text})")


def conv(k: int = 3) -> nn.Conv2d:
    return nn.Conv2d(4, 4, k, padding=k // 2)


@pytest.mark.parametrize(
    ("block", "kept", "text"),
    [
        ((0, 4), (1, 2, 3, 4), "((x123+x1)4+xP)"),
        ((0, 1), (), "x"),
        ((1, 3), (2, 3), "(x23+x)"),
        ((1, 3), (3,), "(x3+x)"),
        ((1, 3), (), "x"),
        ((1, 2), (2,), "x2"),
        ((0, 4), (1, 4), "(x14+xP)"),
        ((0, 4), (2, 4), "((x2+x)4+xP)"),
        ((0, 4), (), "xP"),
    ],
)
def test_composition_in_words(make: Make, block: tuple[int, int], kept: tuple[int, ...], text: str) -> None:
    (chain,) = make([conv() for _ in range(4)], {(1, 3): None, (0, 4): conv(1)}).chains
    words = lower(chain, Choice(Block(0, *block), Kind.MERGE, None, kept)).composed.interpret(
        identity=lambda channels: Words("x"),
        layer=lambda layer: Words(str(layer.index)),
        skip=lambda skip: Words("P"),
    )
    assert words.text == text


def test_a_branch_is_dropped_when_nothing_of_it_is_kept(make: Make) -> None:
    (chain,) = make([conv() for _ in range(3)], {(1, 3): None}).chains
    (skip,) = chain.skips
    for kept, dropped in (((1,), True), ((2,), False), ((1, 3), False)):
        assert lower(chain, Choice(Block(0, 0, 3), Kind.MERGE, None, kept)).composed.drops(skip) is dropped
