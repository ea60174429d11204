"""Two deliveries of one network for one device: did the speed-up hold, and the accuracy?

A speed-up is a ratio of latencies that were measured interleaved in one run, so a machine that is slower today
changes both and the speed-up little; that is why speed-ups are evaluated, and latencies are only shown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from trt_layermerge.delivery.manifest import Figures, Manifest
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import IncompatibleError, InconclusiveError, LayerMergeError, RegressionError, TableError
from trt_layermerge.journal import differences
from trt_layermerge.regression.profiles import remedy
from trt_layermerge.regression.ratio import Ratio, Verdict, verdict


@dataclass(frozen=True)
class DeliveryComparison:
    """What two manifests say of each other.

    Attributes:
        tolerance: Largest loss of speed-up that does not matter, such as 0.05.
        accuracy_tolerance: Largest loss of accuracy that does not matter, in points, or in the metric's own unit where
            it is no accuracy; ``None`` where accuracy is not evaluated.
        across: What the devices differ in and was to be compared across, in words.
        baseline: What was delivered.
        new: What is delivered.
        slowdown: The baseline's speed-up over the new one's, with its 95 % interval; 1.1 where it fell by a tenth.
        verdict: What that says; ``slower`` where the speed-up fell.
        latencies: Latency of each network, new over baseline; the original's says how fast the machine was.
        accuracy_change: Of the compressed network, in the unit of ``accuracy_tolerance``; ``None`` where a figure is
            missing.
    """

    tolerance: float
    accuracy_tolerance: float | None
    across: tuple[str, ...]
    baseline: Manifest
    new: Manifest
    slowdown: Ratio
    verdict: Verdict
    latencies: PerNetwork[Ratio]
    accuracy_change: float | None

    @property
    def accuracy_lost(self) -> bool:
        """Whether more accuracy went than may be lost."""
        change, allowed = self.accuracy_change, self.accuracy_tolerance
        return change is not None and allowed is not None and change < -allowed

    @property
    def objection(self) -> LayerMergeError | None:
        """The error that CI should end with, if any."""
        fell = f"the speed-up fell from {self.baseline.speedup:.3f}x to {self.new.speedup:.3f}x"
        limit = f"more than {100 * self.tolerance:.3g} %"
        accept = "to accept it, let the new manifest be the baseline"
        if self.verdict == "slower":
            return RegressionError(f"{fell}, by {limit}", hint=f"deliver once more to be sure; {accept}")
        if self.accuracy_lost:
            change, allowed = self.accuracy_change, self.accuracy_tolerance
            return RegressionError(f"the accuracy changed by {change:+.3g}, and {allowed:g} is allowed", hint=accept)
        if self.verdict == "unclear" and self.slowdown.may_exceed(self.tolerance):
            low, high = self.slowdown.interval
            return InconclusiveError(
                f"the speed-up went from {self.baseline.speedup:.3f}x to {self.new.speedup:.3f}x; whether it fell by "
                f"{limit} cannot be told: the baseline's is {low:.3f} to {high:.3f} of the new one",
                hint="deliver once more while nothing else runs, or pass a larger --tolerance",
            )
        return None


def compare_deliveries(
    baseline: Manifest,
    new: Manifest,
    tolerance: float,
    accuracy_tolerance: float | None = None,
    across: Collection[str] = (),
) -> DeliveryComparison:
    """Compare two deliveries.

    Args:
        baseline: What was delivered.
        new: What is delivered.
        tolerance: Largest loss of speed-up that does not matter, above 0.
        accuracy_tolerance: Largest loss of accuracy that does not matter; see ``DeliveryComparison``.
        across: Fields of the device that may differ: of ``profiles.ACROSS``.

    Raises:
        IncompatibleError: They are of different networks, batches, metrics, or devices.
        TableError: A latency is no positive number within its interval, or accuracy is to be evaluated and there is
            none.
    """
    differing = _differences(baseline, new)
    allowed = tuple(one for one in differing if one.partition(":")[0] in across)
    if refused := [one for one in differing if one not in allowed]:
        raise IncompatibleError(f"the deliveries cannot be compared: {'; '.join(refused)}", hint=remedy(refused))
    then, now = _latencies(baseline, "baseline"), _latencies(new, "new")
    # The same four latencies are one measurement, which is in both files: nothing can have changed.
    slowdown = Ratio(0.0, 0.0, 0.0) if then == now else _speedup(then) / _speedup(now)
    change = _accuracy_change(baseline, new)
    if change is None and accuracy_tolerance is not None:
        raise TableError("accuracy cannot be evaluated: a manifest holds none", hint="leave --accuracy-tolerance out")
    return DeliveryComparison(
        tolerance,
        accuracy_tolerance,
        allowed,
        baseline,
        new,
        slowdown,
        verdict(slowdown, slowdown, tolerance),
        PerNetwork(now.original / then.original, now.compressed / then.compressed),
        change,
    )


def _differences(baseline: Manifest, new: Manifest) -> list[str]:
    """What differs of what has to be equal, in words; what an old manifest does not say differs from nothing."""
    then, now = _identity(baseline), _identity(new)
    silent = {"compute_capability"} if None in (then["compute_capability"], now["compute_capability"]) else set()
    return [one for one in differences(then, now) if one.partition(":")[0] not in silent]


def _identity(manifest: Manifest) -> dict[str, object]:
    """What makes latencies and accuracies comparable; a model by name, for checkouts lie anywhere."""
    return asdict(manifest.device) | {
        "model": Path(manifest.model).name,
        "batch": manifest.batch,
        "metric": manifest.metric,
        "simulated": manifest.simulated or manifest.device.simulated,
    }


def _latencies(manifest: Manifest, side: str) -> PerNetwork[Ratio]:
    def latency(figures: Figures) -> Ratio:
        median, (low, high) = figures.latency_ms, figures.latency_ci_ms
        if not 0 < low <= median <= high:
            raise TableError(f"the {side} manifest has a latency of {median} ms with the interval {low} to {high}")
        return Ratio.of(median, low, high)

    return manifest.figures.map(latency)


def _speedup(latencies: PerNetwork[Ratio]) -> Ratio:
    return latencies.original / latencies.compressed


def _accuracy_change(baseline: Manifest, new: Manifest) -> float | None:
    then, now = baseline.compressed.accuracy, new.compressed.accuracy
    if then is None or now is None:
        return None
    return (now - then) * (100 if new.metric is None else 1)
