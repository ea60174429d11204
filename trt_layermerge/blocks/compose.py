"""What a block computes once the activations inside it are gone, for anything that composes.

The same recursion serves geometries, weights and any other value with ``then`` (one after the other) and ``beside``
(the sum of two on the same input): V_start is the identity, V_l is layer l after V_{l-1}, plus every skip (s, l) inside
the block after V_s. A dropped layer passes on its input. A residual branch whose layers are all dropped is gone
altogether: what remains is its skip.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import reduce
from typing import Protocol, Self, TypeVar

from trt_layermerge.blocks.choice import Block
from trt_layermerge.network.chain import Chain, Layer, Skip


class Linear(Protocol):
    """A linear map that composes."""

    def then(self, second: Self) -> Self:
        """This map, and then ``second``."""
        ...

    def beside(self, other: Self) -> Self:
        """The sum of this map and ``other``."""
        ...


T = TypeVar("T", bound=Linear)


def inner_skips(chain: Chain, block: Block) -> tuple[Skip, ...]:
    """The skips that lie wholly in a block."""
    return tuple(skip for skip in chain.skips if skip.inside(block.start, block.end))


def outer_skips(chain: Chain, block: Block) -> tuple[Skip, ...]:
    """The skips from before a block that are added to its result, in order of execution."""
    adds = chain.layers[block.end - 1].adds
    skips = [skip for skip in chain.skips if skip.end == block.end and skip.start < block.start and not skip.late]
    return tuple(sorted(skips, key=lambda skip: adds.index(skip.add)))


def late_skips(chain: Chain, block: Block) -> tuple[Skip, ...]:
    """The skips that are added behind a block's last activation, in order of execution."""
    adds = chain.layers[block.end - 1].late_adds
    skips = [skip for skip in chain.skips if skip.end == block.end and skip.late]
    return tuple(sorted(skips, key=lambda skip: adds.index(skip.add)))


def is_late_branch(chain: Chain, block: Block) -> bool:
    """Whether a block and its last activation are what one late skip leads around.

    With all its layers dropped, such a block leaves that skip and nothing else.
    """
    return any(skip.start == block.start for skip in late_skips(chain, block))


def branch_dropped(skip: Skip, kept: Collection[int]) -> bool:
    """Whether none of the layers that a skip leads around is kept."""
    return not any(layer in kept for layer in range(skip.start + 1, skip.end + 1))


def compose(
    chain: Chain,
    block: Block,
    kept: Collection[int],
    *,
    identity: Callable[[int], T],
    layer: Callable[[Layer], T],
    skip: Callable[[Skip], T],
) -> T:
    """Compose the kept layers of a block and the skips inside it into one map.

    Args:
        chain: The chain.
        block: The block.
        kept: Numbers of the layers that are not dropped.
        identity: The identity map on this many channels.
        layer: The map of a layer, its norm included.
        skip: The map of a skip that has a convolution of its own.
    """
    maps = {block.start: identity(chain.shape(block.start)[0])}
    skips = inner_skips(chain, block)

    def tensor(index: int) -> T:
        # From the end backwards: what a dropped branch leads through is never composed, and its shapes need not fit.
        if index not in maps:
            maps[index] = total(index)
        return maps[index]

    def total(index: int) -> T:
        arriving = [item for item in skips if item.end == index]
        terms = [
            tensor(item.start) if item.geometry is None else tensor(item.start).then(skip(item)) for item in arriving
        ]
        if not any(branch_dropped(item, kept) for item in arriving):
            main = tensor(index - 1)
            terms.insert(0, main.then(layer(chain.layers[index - 1])) if index in kept else main)
        return reduce(lambda one, other: one.beside(other), terms)

    return tensor(block.end)
