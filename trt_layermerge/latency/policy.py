"""How sure a latency has to be, and how long that may take. Neither torch nor ONNX: options are made from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from trt_layermerge.latency.statistics import Timing


@dataclass(frozen=True)
class MeasurementPolicy:
    """How sure a latency has to be, and how long that may take.

    Attributes:
        relative_ci: Sampling goes on until the 95 % interval of the median is within this share of the median.
        min_samples: Fewest bursts.
        max_seconds: Longest time in the runs of one candidate; after six bursts at least.
        burst_seconds: Length of a burst.
        min_burst: Fewest runs in a burst; but a run ten times as long as a burst is a burst of its own.
        max_burst: Most runs in a burst.
        builds: Engines of a candidate that take turns. Where their tensors lie in memory, and what a builder chose, is
            one draw a build; the interval of one alone knows nothing of it.
        rebuilds: The same for a sample of the candidates, each built as if nothing had been timed before; what builds
            differ by is part of the intervals of all.
        group: Most candidates that are timed interleaved. Those of one group meet the same moments of the machine, and
            a job beside that comes and goes slows all of them alike; the longer a group takes, the more groups do.
        group_values: Most weights, inputs and outputs of a group, of all builds together, for they are in memory at
            once; an engine may need as much again. But any one candidate is a group.
        disturbance: A round is thrown away in which the sentinel is slower than at its best by more than this share.
        patience: Rounds of a group that may be thrown away, beyond one for each that was not.
        tolerated: Share of a row's samples that may come from disturbed rounds, once patience has ended; a row with
            more is ``degraded``. At 20 % slow samples the median lies at the 62nd percentile of the others, still
            amid them, and its interval is that of all samples.
        spread: The median of a row may lie above its 5th percentile by this share. Above that, a job beside stretched
            most of the runs, perhaps all alike: the interval is narrow, the sentinel's short runs saw nothing, and the
            median is not the candidate's. Such a row is ``degraded``.
        cooling_seconds: Pause after a round in which the device held itself back, for heat above all; such a round was
            disturbed.
        again: Measure rows that are ``degraded`` once more.
    """

    relative_ci: float = 0.02
    min_samples: int = 30
    max_seconds: float = 1.5
    burst_seconds: float = 0.005
    min_burst: int = 3
    max_burst: int = 200
    builds: int = 1
    rebuilds: int = 1
    group: int = 48
    group_values: int = 2**29
    disturbance: float = 0.10
    patience: int = 10
    tolerated: float = 0.20
    spread: float = 0.50
    cooling_seconds: float = 2.0
    again: bool = False

    def burst(self, run_ns: float) -> int:
        """Number of runs in a burst of an engine one run of which takes so many ns."""
        if run_ns > 10e9 * self.burst_seconds:
            return 1
        return min(max(self.min_burst, ceil(1e9 * self.burst_seconds / max(run_ns, 1.0))), self.max_burst)

    def stretched(self, timing: Timing) -> bool:
        """Whether something ran beside most of the runs, as ``spread`` has it."""
        return timing.median_ns > (1 + self.spread) * timing.p5_ns
