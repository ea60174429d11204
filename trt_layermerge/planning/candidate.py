"""What methods are given: choices as they were measured, in no method's scale; and what a method is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from trt_layermerge.planning.problem import Item, Problem


@dataclass(frozen=True, slots=True)
class Candidate:
    """One choice for one block, as measured.

    Attributes:
        chain: Index of the chain.
        start: The block is (start, end] of that chain.
        end: Last layer of the block.
        key: Name of the choice, unique among the candidates.
        kind: ``keep``, ``merge``, ``fit`` or ``identity``.
        droppable: Whether every layer of the block may be dropped without a change of shape; asked of ``identity``.
        latency_ns: Latency of the block under this choice, in ns, rounded up.
        loss_before: Loss of the original network on held-out data.
        loss_after: The same with this one block changed; for ``keep`` equal to ``loss_before``.
        importance: What the choice is worth where a table says so itself, in the method's own scale; losses are
            then not looked at.
        low_ns: Lower end of the 95 % confidence interval of the latency; None where it is taken as certain.
        high_ns: Upper end of it.
        kernel: Kernel of the convolution that is left, 0 for none; None where that is not known.
        depthwise: Whether that convolution is depthwise; None where that is not known.
        dropped: How many convolutions a ``merge`` drops; None where that is not known. ``depth`` takes those with 0.
        start_activation: Whether the activation before the block was there when its importance was measured.
        end_activation: The same of the activation after it.
    """

    chain: int
    start: int
    end: int
    key: str
    kind: str
    droppable: bool
    latency_ns: int
    loss_before: float
    loss_after: float
    importance: float | None = None
    low_ns: int | None = None
    high_ns: int | None = None
    kernel: int | None = None
    depthwise: bool | None = None
    dropped: int | None = None
    start_activation: bool = True
    end_activation: bool = True

    @property
    def gain(self) -> float:
        """By how much the change lowers the loss; mostly negative."""
        return self.loss_before - self.loss_after

    @property
    def block(self) -> tuple[int, int, int]:
        """Chain, start and end."""
        return self.chain, self.start, self.end

    def item(self, value: float) -> Item:
        """The candidate as an item of that value."""
        return Item(
            *self.block,
            self.key,
            self.kind,
            self.latency_ns,
            value,
            self.low_ns,
            self.high_ns,
            self.kernel,
            self.depthwise,
        )


class Method(Protocol):
    """A way to set up the problem."""

    @property
    def name(self) -> str:
        """What the command line and a plan call it."""

    def problem(
        self, lengths: Sequence[int], candidates: Iterable[Candidate], fixed_ns: int, original_ns: int
    ) -> Problem:
        """The problem as this method sees it.

        Args:
            lengths: Number of layers of each chain.
            candidates: All measured choices.
            fixed_ns: Latency outside of all blocks in ns, possibly negative.
            original_ns: Measured latency of the original network in ns.

        Raises:
            InputError: The candidates make no problem: one is out of range or not finite, or a chain cannot be tiled.
        """
