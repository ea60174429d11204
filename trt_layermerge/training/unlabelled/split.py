"""Which samples are trained on, which are held out, and which are for the final figure: by content alone.

So neither names nor order matter, and what occurs twice is in no two parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trt_layermerge.errors import TaskError

FEWEST = 8
"""Different samples that a split needs; some hundreds are a good start."""

SHARE, MOST = 5, 2000
"""One in so many samples is held out, and one is for the final figure; at most so many each."""


@dataclass(frozen=True)
class Split:
    """Indices of samples, each in the order of content.

    Attributes:
        training: What is trained on, and what calibration is the first of.
        held_out: What importance is measured on.
        test: What the final figure is of.
        repeated: What has the content of another one, and is left out.
    """

    training: tuple[int, ...]
    held_out: tuple[int, ...]
    test: tuple[int, ...]
    repeated: tuple[int, ...]

    @property
    def in_words(self) -> str:
        """How many are for what."""
        counts = (
            f"{len(self.training)} to train and calibrate on, {len(self.held_out)} held out, {len(self.test)} to test"
        )
        return counts + (f"; {len(self.repeated)} repeat others and are left out" if self.repeated else "")


def split(digests: Sequence[bytes], source: str) -> Split:
    """Split samples by the hashes of their content.

    Raises:
        TaskError: There are fewer than ``FEWEST`` different ones.
    """
    by_content: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        by_content.setdefault(digest, index)
    order = [by_content[digest] for digest in sorted(by_content)]
    if len(order) < FEWEST:
        raise TaskError(
            f"{source}: there are {len(order)} different samples; at least {FEWEST} are needed",
            hint="some hundreds are a good start: they are split into what is trained on, held out and tested on",
        )
    each = min(MOST, len(order) // SHARE)
    kept = set(order)
    return Split(
        training=tuple(order[2 * each :]),
        held_out=tuple(order[each : 2 * each]),
        test=tuple(order[:each]),
        repeated=tuple(index for index in range(len(digests)) if index not in kept),
    )
