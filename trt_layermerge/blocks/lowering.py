"""What a choice leaves of its block: one value, which costs, rewriting, fits and importance read. Torch-free.

A block has one tensor in and one tensor out. What is written down here is what stands between the two once the choice
is made, by the names of nodes in the normal form: at most one convolution, and what goes on around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from trt_layermerge.blocks.bottleneck import as_seen
from trt_layermerge.blocks.choice import Block, Choice, Kind
from trt_layermerge.blocks.composition import Composition
from trt_layermerge.network.activations import NONNEGATIVE
from trt_layermerge.network.chain import Chain, Layer, PreNorm, Skip
from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.network import Network
from trt_layermerge.network.region import Region

IDEMPOTENT = ("relu", "relu6")
"""Activations that do nothing to their own output."""


@dataclass(frozen=True)
class Shift:
    """What is added to a convolution's result at every pixel.

    Attributes:
        node: Node of it, ``[batch, channels, 1, 1]``.
        number: Of the layer in its chain to whose result the original adds it.
        channels: Of that layer's result.
    """

    node: str
    number: int
    channels: int


@dataclass(frozen=True)
class Lowering:
    """``activation(post_norm(convolution(pre_norm(x)) + shifts) + skips) + late_skips``, each part optional.

    Attributes:
        reads: Node of what the convolution takes: the block's input, or that behind the pre-norm.
        writes: Node of the block's output, which this takes the place of.
        sums: Node of what the original has where the activation stands; a fit makes it of the convolution and skips.
        geometry: Of the convolution; ``None`` where there is none.
        bias: Whether the convolution has one.
        pooling: It is an average pooling, executed as one.
        pre_norm: The group norm, and maybe an activation, that stays in front of the convolution.
        post_norm: The group norm that stood in front of a layer inside, and moves behind the convolution.
        shifts: What is added to the convolution's result at every pixel, in order of their layers; each through a
            matrix where the convolution is no layer that is kept.
        skips: What is added to that, in order of execution.
        act: Node of the activation.
        activation: Canonical name of the activation.
        late_skips: What is added behind the activation, in order of execution.
    """

    reads: str
    writes: str
    sums: str
    geometry: Geometry | None
    bias: bool = True
    pooling: bool = False
    pre_norm: PreNorm | None = None
    post_norm: PreNorm | None = None
    shifts: tuple[Shift, ...] = ()
    skips: tuple[Skip, ...] = ()
    act: str | None = None
    activation: str | None = None
    late_skips: tuple[Skip, ...] = ()


@dataclass(frozen=True)
class ChainLowering(Lowering):
    """What is left of layers of a chain, of which is known how they compose.

    Attributes:
        composed: What is merged into the convolution; of a fit, what is left of the block without its layers.
    """

    composed: Composition = field(kw_only=True)


def lowered_in(network: Network, choice: Choice) -> Lowering:
    """What a choice leaves of its block, be that a part of a chain or a region."""
    block = choice.block
    if block.region is None:
        return lower(network.chains[block.chain], choice)
    return lower_region(network.regions[block.region], choice)


def input_of(network: Network, choice: Choice) -> str:
    """Node of the tensor that a choice's block begins at; what its convolution reads may lie behind a norm."""
    block = choice.block
    if block.region is None:
        return network.chains[block.chain].tensor(block.start)
    return network.regions[block.region].input


def layers_of(network: Network, block: Block) -> tuple[tuple[int, int], ...]:
    """The layers in a block, as chain and number."""
    if block.region is None:
        return tuple((block.chain, index) for index in range(block.start + 1, block.end + 1))
    return network.regions[block.region].layers


def lower_region(region: Region, choice: Choice) -> Lowering:
    """What a choice leaves of a region: one convolution or nothing, and the region's last activation."""
    return Lowering(
        reads=region.input,
        writes=region.output,
        sums=region.before_activation,
        geometry=choice.geometry,
        act=region.act,
        activation=region.activation,
    )


def lower(chain: Chain, choice: Choice) -> ChainLowering:
    """What a choice leaves of its block.

    1. An activation that the choice adds is the last layer's, and a skip around the block is late (``bottleneck.py``).
    2. A group norm in front of the block stays there. Where all layers are dropped, it goes with them.
    3. Skips that lie wholly in the block are composed with its layers. One that leads around a block behind a norm
       that stays is not: it reads the tensor before that norm, and the convolution the one behind it.
    4. Nothing is composed with a layer that is kept.
    5. All other skips that end with the block stay beside the convolution, late ones behind the activation.
    6. Group norms inside the block go. In a merge, the last one between two kept layers moves behind the convolution,
       if its channels are the block's and no skip is composed: what it did for the convolution behind it, it does for
       what follows both. LayerMerge does so in DDPM.
    7. The shifts of kept layers are added to the convolution's result; in a fit, those of all layers of the block.
    8. The block's last activation stays. If a late skip leads around it and all layers, and these are dropped, then it
       is part of what is dropped, and that skip is all that is left.
    9. An activation goes, too, that would do nothing to what alone reaches it, the input of a dropped block.
    """
    chain = as_seen(chain, choice.place)  # rule 1
    block, last, kept = choice.block, chain.layers[choice.block.end - 1], choice.kind is Kind.KEEP
    pre_norm = None if choice.emptied else chain.layers[block.start].pre_norm  # rule 2
    inside = () if kept else _inside(chain, choice, beside=pre_norm is not None)  # rules 3 and 4
    composed = Composition(chain, block, frozenset(choice.kept), inside)
    skips, late_skips = _beside(composed, last)  # rule 5
    act, activation = last.act, last.activation
    if choice.kind is Kind.IDENTITY:
        if any(skip.start == block.start for skip in late_skips):  # rule 8
            act, activation, skips, late_skips = None, None, (), ()
        elif not skips and _does_nothing(activation, chain.activation(block.start)):  # rule 9
            act, activation = None, None
    return ChainLowering(
        reads=chain.tensor(block.start) if pre_norm is None else pre_norm.output,
        writes=last.output,
        sums=last.before_activation,
        geometry=choice.geometry,
        composed=composed,
        bias=last.bias if kept else True,
        pooling=kept and last.pooling,
        pre_norm=pre_norm,
        post_norm=_moved(composed) if choice.kind is Kind.MERGE else None,  # rule 6
        shifts=tuple(_shifts(composed, choice)),  # rule 7
        skips=skips,
        act=act,
        activation=activation,
        late_skips=late_skips,
    )


def _inside(chain: Chain, choice: Choice, *, beside: bool) -> tuple[Skip, ...]:
    """The skips that lie wholly in a block; ``beside``: but those from its input."""
    start, end = choice.block.start, choice.block.end
    return tuple(skip for skip in chain.skips if skip.inside(start, end) and not (beside and skip.start == start))


def _beside(composed: Composition, last: Layer) -> tuple[tuple[Skip, ...], tuple[Skip, ...]]:
    """The skips that end with a block and are not composed, in order of execution: before the activation, and late."""
    skips = [skip for skip in composed.chain.skips if skip.end == last.index and skip not in composed.skips]
    before = sorted((skip for skip in skips if not skip.late), key=lambda skip: last.adds.index(skip.add))
    late = sorted((skip for skip in skips if skip.late), key=lambda skip: last.late_adds.index(skip.add))
    return tuple(before), tuple(late)


def _moved(composed: Composition) -> PreNorm | None:
    """The group norm of a merged block that moves behind its convolution."""
    channels = composed.chain.shape(composed.block.end)[0]
    behind = (layer for layer in reversed(composed.layers[1:]) if layer.input_shape[0] == channels)
    found = next((layer.pre_norm for layer in behind if layer.pre_norm is not None), None)
    return None if composed.skips else found


def _shifts(composed: Composition, choice: Choice) -> Iterator[Shift]:
    """What is added to a block's convolution at every pixel."""
    chain, block = composed.chain, composed.block
    layers = chain.layers[block.start : block.end] if choice.kind is Kind.FIT else composed.layers
    for layer in layers:
        if layer.shift is not None:
            yield Shift(layer.shift, layer.index, chain.shape(layer.index)[0])


def _does_nothing(activation: str | None, before: str | None) -> bool:
    """Whether an activation passes on what another one has made."""
    return activation in IDEMPOTENT and (before == activation or (activation == "relu" and before in NONNEGATIVE))
