"""Blocks and the choices for them, as values. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trt_layermerge.network.geometry import Geometry
from trt_layermerge.network.region import Region


class Kind(StrEnum):
    """What becomes of a block."""

    KEEP = "keep"
    MERGE = "merge"
    FIT = "fit"
    IDENTITY = "identity"


@dataclass(frozen=True)
class Block:
    """Layers ``start + 1 .. end`` of a chain: what lies between its tensors ``start`` and ``end``.

    Attributes:
        chain: Number of the chain.
        start: Number of the tensor that it reads.
        end: Number of its last layer.
        region: Of a region that is replaced as a whole, its number in the network.
        end_chain: Of a region, the chain that ``end`` is a layer of.
        inside: Of a region, how many layers of chains it has.
    """

    chain: int
    start: int
    end: int
    region: int | None = None
    end_chain: int | None = None
    inside: int | None = None

    @classmethod
    def of(cls, region: Region) -> Block:
        """A region as a block."""
        (chain, start), (end_chain, end) = region.start, region.end
        return cls(chain, start, end, region.index, end_chain, len(region.layers))

    def __len__(self) -> int:
        """Number of layers."""
        return self.end - self.start if self.inside is None else self.inside

    def __lt__(self, other: Block) -> bool:
        """In order of execution: by where they begin, then by where they end."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, int, int, int]:
        end_chain = self.chain if self.end_chain is None else self.end_chain
        return self.chain, self.start, end_chain, self.end, -1 if self.region is None else self.region

    def __str__(self) -> str:
        """As people read it: ``block 3-5 of chain 0`` is written ``0:3-5``, region 7 from there on ``0:3-2:1 r7``."""
        if self.region is None:
            return f"{self.chain}:{self.start}-{self.end}"
        return f"{self.chain}:{self.start}-{self.end_chain}:{self.end} r{self.region}"


Place = tuple[Block, str | None]
"""A block, and the activation that is added behind it, if one is: what a fit aims at depends on both."""


@dataclass(frozen=True)
class Choice:
    """One thing that can be done with a block.

    Attributes:
        block: The block.
        kind: What becomes of it.
        geometry: The one convolution that takes its place; ``None`` for ``identity``.
        kept: Of ``keep`` and ``merge``, the layers whose convolutions are composed; the others are dropped. Of a region
            that is merged, none are named: it drops nothing.
        reducible: Every layer of the block maps its input shape to itself, so that each could be dropped by itself:
            the papers' condition for dropping the block.
        activation: Canonical name of the activation that is added behind its convolution, where the original has none;
            see ``bottleneck.py``.
    """

    block: Block
    kind: Kind
    geometry: Geometry | None
    kept: tuple[int, ...] = ()
    reducible: bool = False
    activation: str | None = None

    @property
    def place(self) -> Place:
        """The block, and the activation that is added behind it."""
        return self.block, self.activation

    @property
    def layers(self) -> int:
        """Number of layers of the block."""
        return len(self.block)

    @property
    def dropped(self) -> int | None:
        """How many convolutions a ``merge`` of layers in a row drops; ``None`` for all else."""
        return len(self.block) - len(self.kept) if self.kind is Kind.MERGE and self.block.region is None else None

    @property
    def emptied(self) -> bool:
        """Nothing of its layers is left, their pre-norms neither: what remains are skips."""
        return self.kind is Kind.IDENTITY or self.dropped == len(self.block)

    @property
    def key(self) -> str:
        """Names the choice in tables and plans: unique in a network, the same in every run."""
        if self.geometry is None:
            return f"{self.block} {self.kind}"
        kernel = "x".join(map(str, self.geometry.kernel))
        added = "" if self.activation is None else f" +{self.activation}"
        return f"{self.block} {self.kind} {kernel} g{self.geometry.groups}{added}"
