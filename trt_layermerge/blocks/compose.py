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

from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.network.chain import Chain, Front, Layer, Skip


class Linear(Protocol):
    """A linear map that composes."""

    def then(self, second: Self) -> Self:
        """This map, and then ``second``."""
        ...

    def beside(self, other: Self) -> Self:
        """The sum of this map and ``other``."""
        ...


T = TypeVar("T", bound=Linear)


def inner_skips(chain: Chain, block: Block, *, emptied: bool = False) -> tuple[Skip, ...]:
    """The skips that are part of what takes a block's place: those that lie wholly in it.

    A skip that leads around a block whose first layer has a front reads the tensor before that front and the block's
    convolution the one behind it, so that it stays beside the block; unless the block is ``emptied``: all its layers
    dropped, and the front with them.
    """
    beside = not emptied and chain.layers[block.start].front is not None
    skips = (skip for skip in chain.skips if skip.inside(block.start, block.end))
    return tuple(skip for skip in skips if not (beside and skip.start == block.start))


def outer_skips(chain: Chain, block: Block, *, emptied: bool = False) -> tuple[Skip, ...]:
    """The skips added to the result of what takes a block's place, before the activation, in order of execution."""
    adds, inner = chain.layers[block.end - 1].adds, inner_skips(chain, block, emptied=emptied)
    skips = [skip for skip in chain.skips if skip.end == block.end and skip.start <= block.start and not skip.late]
    skips = [skip for skip in skips if skip not in inner]
    return tuple(sorted(skips, key=lambda skip: adds.index(skip.add)))


def front_kept(chain: Chain, choice: Choice) -> Front | None:
    """The front that stays before what takes a block's place: its first layer's, if it has one."""
    return None if choice.emptied else chain.layers[choice.block.start].front


def front_moved(chain: Chain, choice: Choice) -> Front | None:
    """The front inside a merged block whose group norm moves behind the merged convolution.

    LayerMerge does so in DDPM: what the norm did for the convolution after it, it does for what follows both. It is
    the last one between two kept layers, if its channels are the block's and no skip is folded into the block.
    """
    block, channels = choice.block, chain.shape(choice.block.end)[0]
    if choice.kind is not Kind.MERGE or choice.emptied or inner_skips(chain, block):
        return None
    behind = (chain.layers[index - 1] for index in reversed(choice.kept[1:]))
    return next((layer.front for layer in behind if layer.front and layer.input_shape[0] == channels), None)


def shifted_layers(chain: Chain, kept: Collection[int]) -> tuple[Layer, ...]:
    """The kept layers with a shift, in order: what takes their place takes these shifts."""
    return tuple(layer for layer in chain.layers if layer.index in kept and layer.shift is not None)


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
        layer: The map of a layer, its norm included; of its front nothing.
        skip: The map of a skip that has a convolution of its own.
    """
    maps = {block.start: identity(chain.shape(block.start)[0])}
    skips = inner_skips(chain, block, emptied=not kept)

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
