"""Who measures the rows of a profile: the device that is here, or machines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from trt_layermerge.blocks.gap_signature import AnySignature
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.profile import ProfileKey, ProfileRow


class Runner(Protocol):
    """Measures operations on devices of one kind."""

    @property
    def key(self) -> ProfileKey:
        """What its rows are of."""

    @property
    def policy(self) -> MeasurementPolicy:
        """How sure its latencies are."""

    def rows(self, signatures: Sequence[AnySignature], max_seconds: float | None = None) -> Iterator[ProfileRow]:
        """Measure each, in any order; a row comes as soon as it is known.

        After ``max_seconds`` no operation is begun any more, and the rest has no row.

        Raises:
            RuntimeNotAvailableError: The device is not here, or no longer.
        """
