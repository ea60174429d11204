"""What a user may ask for: a latency budget as a share of the original's, in milliseconds, or as a speedup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from trt_layermerge.errors import UsageError

_TEXT = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|x|)", re.ASCII)
_HINT = "write 0.6 for 60 % of the original's latency, 22.3ms for milliseconds, or 1.8x for a speedup"


class BudgetUnit(StrEnum):
    """What the number of a budget means; the value is its suffix."""

    SHARE = ""
    MILLISECONDS = "ms"
    SPEEDUP = "x"


@dataclass(frozen=True)
class Budget:
    """A latency budget, exact in decimal.

    Attributes:
        amount: A share of the original's latency (0 < share <= 1), milliseconds (> 0), or a speedup (>= 1).
        unit: Which of the three.

    Raises:
        UsageError: The amount is out of range.
    """

    amount: Decimal
    unit: BudgetUnit

    def __post_init__(self) -> None:
        """Check the range."""
        if self.unit is BudgetUnit.SPEEDUP and not (self.amount.is_finite() and self.amount >= 1):
            raise UsageError(f"a speedup of {self} cannot be; it must be 1 or more", hint=_HINT)
        if not self.amount.is_finite() or self.amount <= 0:
            raise UsageError(f"a budget of {self} leaves no time at all; it must be above 0", hint=_HINT)
        if self.unit is BudgetUnit.SHARE and self.amount > 1:
            raise UsageError(
                f"a budget of {self} is above 1, and a budget without unit is a share of the original's latency",
                hint=_HINT,
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget as people write it: ``0.6``, ``22.3ms`` or ``1.8x``.

        Raises:
            UsageError: The text is none of these, or the number is out of range.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise UsageError(f"cannot read the budget {text!r}", hint=_HINT)
        return cls(Decimal(match[1]), BudgetUnit(match[2]))

    @classmethod
    def from_speedup(cls, speedup: float) -> Budget:
        """The budget under which a plan is at least so many times as fast as the original.

        Raises:
            UsageError: The speedup is below 1 or not finite.
        """
        return cls(Decimal(repr(float(speedup))), BudgetUnit.SPEEDUP)

    def nanoseconds(self, original_ns: int) -> int:
        """The largest latency in whole ns that is within the budget, for an original of the given latency in ns."""
        amount = Fraction(self.amount)
        if self.unit is BudgetUnit.MILLISECONDS:
            return int(amount * 1_000_000)
        return int(original_ns * amount if self.unit is BudgetUnit.SHARE else original_ns / amount)

    def __str__(self) -> str:
        """The budget as ``parse`` reads it."""
        return f"{self.amount:f}{self.unit}"


def milliseconds(latency_ns: int) -> str:
    """A latency in ns as exact text in ms, such as ``22.3 ms``."""
    return f"{(Decimal(latency_ns) / 1_000_000).normalize():f} ms"
