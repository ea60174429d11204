"""The estimate: of a workload, on a card, with a runtime's algorithms and a timing mode, and how sure it is.

How sure is decided in this order:

1. Another precision than FP32, or what no fit has seen (groups, dilation, an addition, no convolution at all), is
   ``uncalibrated``.
2. So is what lies outside the rows that the algorithm was fitted on.
3. Where errors of the algorithm are known on this very card, it is ``calibrated``.
4. Otherwise the constants are another card's: ``transferred``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Literal

import numpy as np

from trt_layermerge.estimation.card import Algorithm, Card, Spread, TimingMode
from trt_layermerge.estimation.formulas import Column, Shapes, gpu_ms, operation_ms
from trt_layermerge.estimation.tactic_sources import DEFAULT_LIBRARY, algorithms_of
from trt_layermerge.estimation.workload import MemoryOperation, Workload

Calibrated = Literal["calibrated", "transferred", "uncalibrated"]

UNSEEN = Spread(rows=0, median=1.0, p90=2.0, low=-log(3), high=log(3))
"""What is said of what nobody has compared with a measurement: a factor of three."""

OVERHEAD_FACTOR = 1.5
"""How far the overhead of another timing mode than the fitted one may be off: 12 to 18 us a run fit the V100's rows."""


@dataclass(frozen=True)
class Estimate:
    """An estimated latency.

    Attributes:
        latency_ns: In ns, rounded up.
        low_ns: Lower end of the 90 % interval.
        high_ns: Upper end.
        algorithm: What is fastest by the model; ``memory`` for operations that are no convolution.
        calibrated: How sure it is: ``calibrated``, ``transferred`` or ``uncalibrated``.
    """

    latency_ns: int
    low_ns: int
    high_ns: int
    algorithm: str
    calibrated: Calibrated


@dataclass(frozen=True)
class LatencyModel:
    """Estimates latencies.

    Attributes:
        card: The card.
        library: The runtime with its version, which decides what algorithms there are.
        timing: What is timed besides the GPU's work.
    """

    card: Card
    library: str = DEFAULT_LIBRARY
    timing: TimingMode = "engine"

    def convolutions(self, workloads: Sequence[Workload]) -> list[Estimate]:
        """Estimates of convolutions, in their order.

        Raises:
            ValueError: The library is not known.
        """
        if not workloads:
            return []
        times = self.by_algorithm(workloads)
        names, table = list(times), np.stack(list(times.values()))
        found = []
        for one, fastest, gpu in zip(workloads, table.argmin(axis=0), table.min(axis=0), strict=True):
            algorithm = names[fastest]
            sure = self._sureness(one, algorithm)
            found.append(self._estimate(float(gpu), algorithm, sure, self._spread(one, algorithm, sure)))
        return found

    def operation(self, operation: MemoryOperation) -> Estimate:
        """The estimate of an operation that only moves memory."""
        gpu = operation_ms(operation, self.card.sheet, self.card.constants)
        gpu += (operation.kernels - 1) * self.card.constants.amid_network_ms
        return self._estimate(gpu, "memory", "uncalibrated", UNSEEN)

    def engine_run(self) -> Estimate:
        """What a run of an engine takes besides its kernels; none of it is the card's, and it is as sure as it gets."""
        overhead = 1e6 * self.card.constants.engine_ms
        low, high = int(overhead / OVERHEAD_FACTOR), ceil(overhead * OVERHEAD_FACTOR)
        return Estimate(ceil(overhead), low, high, "overhead", "calibrated")

    def by_algorithm(self, workloads: Sequence[Workload]) -> Mapping[Algorithm, Column]:
        """Milliseconds of GPU work of every algorithm that the library has, ``[rows]``."""
        allowed = algorithms_of(self.library)
        times = gpu_ms(Shapes.of(workloads, self.card.sheet), self.card.sheet, self.card.constants)
        return {name: column for name, column in times.items() if name in allowed}

    def _sureness(self, one: Workload, algorithm: Algorithm) -> Calibrated:
        if one.precision != "fp32" or one.oddities:
            return "uncalibrated"  # rule 1
        known = self.card.coverage.get(algorithm)
        if known is None or known.outside(one):
            return "uncalibrated"  # rule 2
        return "calibrated" if algorithm in self.card.own else "transferred"  # rules 3 and 4

    def _spread(self, one: Workload, algorithm: Algorithm, sure: Calibrated) -> Spread:
        """The errors that were met on this card; or else on another one, as far to either side.

        What was too slow there may be too fast here. Rule 1 is never narrower than ``UNSEEN``.
        """
        if sure == "calibrated":
            return self.card.own[algorithm]
        met = self.card.transfer.get(one.precision, {}).get(algorithm, UNSEEN)
        least = UNSEEN.high if one.precision != "fp32" or one.oddities else 0.0
        far = max(-met.low, met.high, least)
        return Spread(met.rows, met.median, met.p90, -far, far)

    def _estimate(self, gpu: float, algorithm: str, sure: Calibrated, spread: Spread) -> Estimate:
        """Put overhead and interval around the GPU's work.

        Errors are of a row with the overhead that it was timed with. In milliseconds they are the same in another
        timing mode; so a share of a short convolution that stood behind a long call is a large share of the
        convolution.
        """
        constants = self.card.constants
        met_in = self.card.timing if sure == "calibrated" else self.card.transfer_timing
        overhead, total = constants.overhead_ms(self.timing), constants.overhead_ms(met_in) + gpu
        above, below = total * (exp(spread.high) - 1), total * (1 - exp(spread.low))
        latency = overhead + gpu
        if self.timing == met_in:
            low, high = latency - below, latency + above
        else:
            low = overhead / OVERHEAD_FACTOR + gpu / (1 + below / max(gpu, 1e-9))
            high = overhead * OVERHEAD_FACTOR + gpu + above
        nanoseconds = ceil(1e6 * latency)
        return Estimate(nanoseconds, min(int(1e6 * low), nanoseconds), ceil(1e6 * high), algorithm, sure)
