"""How long computations tell what they are doing."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""Called with how much is done, how much there is, and what is in hand or was done last, in a few words."""
