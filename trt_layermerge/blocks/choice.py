"""Blocks and the choices for them, as values. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trt_layermerge.network.geometry import Geometry


class Kind(StrEnum):
    """What becomes of a block."""

    KEEP = "keep"
    MERGE = "merge"
    FIT = "fit"
    IDENTITY = "identity"


@dataclass(frozen=True, order=True)
class Block:
    """Layers ``start + 1 .. end`` of a chain: what lies between its tensors ``start`` and ``end``."""

    chain: int
    start: int
    end: int

    def __len__(self) -> int:
        """Number of layers."""
        return self.end - self.start

    def __str__(self) -> str:
        """As people read it: ``block 3-5 of chain 0`` is written ``0:3-5``."""
        return f"{self.chain}:{self.start}-{self.end}"


Place = tuple[Block, str | None]
"""A block, and the activation that is added behind it, if one is: what a fit aims at depends on both."""


@dataclass(frozen=True)
class Choice:
    """One thing that can be done with a block.

    Attributes:
        block: The block.
        kind: What becomes of it.
        geometry: The one convolution that takes its place; ``None`` for ``identity``.
        kept: Of ``keep`` and ``merge``, the layers whose convolutions are composed; the others are dropped.
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
        """How many convolutions a ``merge`` drops; ``None`` for other kinds."""
        return len(self.block) - len(self.kept) if self.kind is Kind.MERGE else None

    @property
    def emptied(self) -> bool:
        """Nothing of its layers is left, their fronts neither: what remains are skips."""
        return self.kind is Kind.IDENTITY or (self.kind is Kind.MERGE and not self.kept)

    @property
    def key(self) -> str:
        """Names the choice in tables and plans: unique in a network, the same in every run."""
        if self.geometry is None:
            return f"{self.block} {self.kind}"
        kernel = "x".join(map(str, self.geometry.kernel))
        added = "" if self.activation is None else f" +{self.activation}"
        return f"{self.block} {self.kind} {kernel} g{self.geometry.groups}{added}"
