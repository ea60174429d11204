"""Methods that plan widths: what they are set up with, and which widths of a channel group they take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from trt_layermerge.errors import UsageError
from trt_layermerge.planning.candidate import MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.methods.base import Method, method_setting
from trt_layermerge.planning.widths import WidthGroup, WidthOption

ALL = "all"

_NUMBER = re.compile(r"\d{1,30}\.?\d{0,30}|\.\d{1,30}", re.ASCII)


@dataclass(frozen=True)
class NarrowingMethod(Method):
    """A method that plans with the widths of channel groups, valued by the change of the loss like other choices.

    Attributes:
        widths: ``all`` that were measured, or shares of all channels, such as ``1.0,0.75,0.5``: of a group the
            measured width that is nearest to each. All channels are always on offer.

    Raises:
        UsageError: A share is no number above 0 and up to 1.
    """

    widths: str = method_setting(
        ALL,
        "narrow layers, too: shares of their channels such as 1.0,0.75,0.5, or all.",
        usual="none; all with --method width, and in tables of your own",
    )

    def __post_init__(self) -> None:
        """Check the shares."""
        super().__post_init__()
        if self.shares is not None and not all(0 < share <= 1 for share in self.shares):
            raise UsageError(
                f"method {self.name}: widths of {self.widths!r} cannot be",
                hint=f"write {ALL}, or shares of the channels such as 1.0,0.75,0.5; 1.0 narrows nothing",
            )

    @property
    def shares(self) -> tuple[Fraction, ...] | None:
        """Those that are asked for."""
        return None if self.widths == ALL else tuple(_share(text) for text in self.widths.split(","))

    def width_value(self, width: MeasuredWidth) -> float:
        """What a width is worth by its losses; larger is better."""
        return width.gain

    def offered(self, groups: Sequence[MeasuredGroup]) -> tuple[WidthGroup, ...]:
        """The groups of which a narrower width is taken."""
        taken = ((group, self._taken(group)) for group in groups)
        return tuple(
            WidthGroup(group.key, (WidthOption(group.full, 0.0), *map(self._option, widths)))
            for group, widths in taken
            if widths
        )

    def _taken(self, group: MeasuredGroup) -> tuple[MeasuredWidth, ...]:
        if self.shares is None:
            return group.narrower
        there = [group.full, *(width.channels for width in group.narrower)]
        # Of two that are as near the wider one, which costs less of the network.
        near = {min(there, key=lambda width: (abs(width - share * group.full), -width)) for share in self.shares}
        return tuple(width for width in group.narrower if width.channels in near)

    def _option(self, width: MeasuredWidth) -> WidthOption:
        value = self.width_value(width) if width.importance is None else width.importance
        return WidthOption(width.channels, value, width.latency_ns)


def _share(text: str) -> Fraction:
    return Fraction(text.strip()) if _NUMBER.fullmatch(text.strip()) else Fraction(0)
