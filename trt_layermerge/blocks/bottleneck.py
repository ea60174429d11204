"""Activations that a choice adds at a linear bottleneck. Torch-free.

An inverted residual (MobileNetV2) ends in a convolution that makes its tensor narrow, with no activation. Once all of
it is one convolution, nothing non-linear is left between that and the next one, which is why arXiv 2301.12187 adds an
activation there before it fine-tunes. Here that is a choice of its own beside the one without.

The activation stands right behind the block's convolution, and a skip around the block is added behind it: it bounds
what the block adds to the tensor that the skip carries, and not that tensor. To such a choice, the chain is one whose
layer ends like that already, so that everything that is said of blocks and skips holds for it as it is.
"""

from __future__ import annotations

from dataclasses import replace

from trt_layermerge.blocks.choice import Block, Place
from trt_layermerge.network.chain import Chain, Layer, Skip

LEARNED = ("prelu",)
"""Activations with weights of their own, which belong to the layer that they were trained in."""


def addable(chain: Chain, block: Block) -> str | None:
    """The activation that may be added behind a block: the last one inside, if the block ends at a linear bottleneck.

    That is a layer with fewer channels than it reads, no activation, and another layer behind it. All skips that end in
    it must lead around the block, or all lie deeper inside; of both kinds there is no sum to put an activation on.
    """
    last = chain.layers[block.end - 1]
    narrow = last.geometry.out_channels < last.geometry.in_channels
    if not narrow or last.activation is not None or block.end == len(chain):
        return None
    around = [_leads_around(skip, block) for skip in chain.skips if skip.end == block.end]
    inner = _activated_inside(chain, block)
    return None if inner is None or (any(around) and not all(around)) else inner.activation


def as_seen(chain: Chain, place: Place) -> Chain:
    """The chain as it is to choices for a place: where they add an activation, with that, and skips around it late.

    Requires: the activation is the one that may be added.
    """
    block, activation = place
    if activation is None:
        return chain
    last, inner = chain.layers[block.end - 1], _activated_inside(chain, block)
    assert inner is not None and inner.activation == activation
    skips = tuple(
        replace(skip, late=True) if skip.end == block.end and _leads_around(skip, block) else skip
        for skip in chain.skips
    )
    late = any(skip.end == block.end and skip.late for skip in skips)
    layer = replace(last, act=inner.act, activation=inner.activation)
    if late:
        layer = replace(layer, adds=(), late_adds=last.adds)
    return replace(chain, layers=(*chain.layers[: block.end - 1], layer, *chain.layers[block.end :]), skips=skips)


def _leads_around(skip: Skip, block: Block) -> bool:
    return skip.start <= block.start


def _activated_inside(chain: Chain, block: Block) -> Layer | None:
    """The last layer inside a block, its own last one aside, with an activation that can stand elsewhere too."""
    inside = reversed(chain.layers[block.start : block.end - 1])
    return next((layer for layer in inside if layer.activation and layer.activation not in LEARNED), None)
