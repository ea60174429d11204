"""Fits behind a layer that stays: two convolutions, with the original's activation between them. Torch-free.

Two neighbouring fits are two convolutions, too, but only where the network is cut at one tensor: not inside of what a
skip leads around. There the first layer of a block may stay, and one convolution behind its activation takes the place
of all that follows, of the skips past that layer as well: what these carried, it makes of what the layer lets through.
"""

from __future__ import annotations

from dataclasses import replace

from trt_layermerge.blocks.choice import Block, Choice, Kind, Place
from trt_layermerge.network.chain import Chain, Skip
from trt_layermerge.network.network import Network


def place_behind(network: Network, block: Block) -> Place | None:
    """A block with its first layer in front, if two neighbouring choices are not as good.

    1. The layer has an activation; else the two convolutions would be one.
    2. The layer reads what the block reads. In a region something else may come first.
    3. Something leads past the layer, and arrives before the block ends. Where nothing does, the layer is kept and
       what follows is a block; where it arrives at the end, what follows is one beside that skip.
    """
    chain = network.chains[block.chain]
    first = chain.layers[block.start] if block.start < len(chain) else None
    if first is None or first.activation is None:
        return None  # rule 1
    if block.region is not None:
        region = network.regions[block.region]
        passed = region.input == chain.tensor(block.start) and region.passes_first_layer  # rules 2 and 3
    else:
        passed = any(_passes(skip, block) for skip in chain.skips)  # rule 3
    return Place(block, behind=first.index) if passed else None


def without_passing(chain: Chain, block: Block) -> Chain:
    """The chain without the skips that lead past the first layer of a block and end inside of it."""
    return replace(chain, skips=tuple(skip for skip in chain.skips if not _passes(skip, block)))


def layer_in_front(network: Network, choice: Choice) -> Choice | None:
    """What becomes of the layer in front of a choice's convolution, as a choice of its own: it is kept."""
    if choice.behind is None:
        return None
    chain, number = network.chains[choice.block.chain], choice.behind
    geometry = chain.layers[number - 1].geometry
    return Choice(Block(chain.index, number - 1, number), Kind.KEEP, geometry, (number,), geometry.keeps_shape)


def _passes(skip: Skip, block: Block) -> bool:
    """Whether a skip leads past the first layer of a block to a tensor inside."""
    return skip.start == block.start and block.start + 1 < skip.end < block.end
