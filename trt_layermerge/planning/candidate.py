"""What methods are given: choices as they were measured, in no method's scale."""

from __future__ import annotations

from dataclasses import dataclass, fields

from trt_layermerge.planning.problem import Item, TimedChoice


@dataclass(frozen=True, slots=True)
class Candidate(TimedChoice):
    """One choice for one block, as measured.

    Attributes:
        reducible: Whether every layer of the block may be dropped without a change of shape; asked of ``identity``.
        loss_before: Loss of the original network on held-out data.
        loss_after: The same with this one block changed; for ``keep`` equal to ``loss_before``.
        importance: What the choice is worth where a table says so itself, in the method's own scale; losses are
            then not looked at.
        dropped: How many convolutions a ``merge`` drops; None where that is not known. ``depth`` takes those with 0.
        start_activation: Whether the activation before the block was there when its importance was measured.
        end_activation: The same of the activation after it.
    """

    reducible: bool
    loss_before: float
    loss_after: float
    importance: float | None = None
    dropped: int | None = None
    start_activation: bool = True
    end_activation: bool = True

    @property
    def gain(self) -> float:
        """By how much the change lowers the loss; mostly negative."""
        return self.loss_before - self.loss_after

    def item(self, value: float) -> Item:
        """The candidate as an item of that value."""
        return Item(value=value, **{name: getattr(self, name) for name in _SHARED})


@dataclass(frozen=True, slots=True)
class MeasuredWidth:
    """One width of a channel group that is less than all its channels, as measured.

    Attributes:
        channels: How many channels are left.
        loss_before: Loss of the original network on held-out data.
        loss_after: The same with this one group narrowed.
        importance: As of ``Candidate``.
        latency_ns: What narrowing adds to the latency outside of all blocks, in ns; negative where it saves.
    """

    channels: int
    loss_before: float
    loss_after: float
    importance: float | None = None
    latency_ns: int = 0

    @property
    def gain(self) -> float:
        """By how much narrowing lowers the loss; mostly negative."""
        return self.loss_before - self.loss_after


@dataclass(frozen=True, slots=True)
class MeasuredGroup:
    """A channel group as candidates name it.

    Attributes:
        key: Name of the group.
        full: Number of channels that the network has as it is.
        narrower: The other widths it may have.
    """

    key: str
    full: int
    narrower: tuple[MeasuredWidth, ...]


_SHARED = tuple(one.name for one in fields(TimedChoice))
