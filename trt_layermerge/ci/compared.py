"""What a comparison found, as CI is told of it."""

from __future__ import annotations

from collections.abc import Iterator

from trt_layermerge.ci.case import CiCase, CiReport, Measure, Outcome
from trt_layermerge.ci.measured import measure_of, suite_of
from trt_layermerge.delivery.manifest import Figures
from trt_layermerge.regression.comparable import Comparison
from trt_layermerge.regression.deliveries import DeliveryComparison
from trt_layermerge.regression.printing import comparison_notes
from trt_layermerge.regression.profiles import ProfileComparison, RowPair
from trt_layermerge.regression.ratio import Ratio, Verdict

_OUTCOMES: dict[Verdict, Outcome] = {"slower": "failed", "unclear": "skipped", "same": "passed", "faster": "passed"}


def report_of_comparison(found: Comparison) -> CiReport:
    """A comparison of profiles with a case for each operation and one for the machine, or of two deliveries."""
    return _of_profiles(found) if isinstance(found, ProfileComparison) else _of_deliveries(found)


def _of_profiles(found: ProfileComparison) -> CiReport:
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    broken = f", {len(found.broken)} failed" if found.broken else ""
    return CiReport(
        suite=f"compare.{suite_of(found.device)}",
        title=f"{len(found.pairs)} operations on {found.device.name}: {counts}{broken}",
        notes=tuple(comparison_notes(found)),
        columns=("ratio", "surely", "baseline, ms", "new, ms"),
        cases=tuple(_profile_cases(found)),
    )


def _profile_cases(found: ProfileComparison) -> Iterator[CiCase]:
    blank = ("", "", "", "")
    for row in found.broken:
        yield CiCase(row.key, "failed", "failed", row.reason, blank, None)
    if found.slowed:
        reason = "nothing can be said of a change that all operations have in common"
        yield CiCase("the machine as a whole", "skipped", "slower", reason, (*_ratio(found.factor), "", ""), None)
    yield from (_pair_case(pair) for pair in found.pairs)
    for row in found.incomparable:
        yield CiCase(row.key, "skipped", "not compared", row.reason, blank, None)


def _pair_case(pair: RowPair) -> CiCase:
    medians = (f"{timing.median_ns / 1e6:.4f}" for timing in (pair.baseline, pair.new))
    reason = pair.reason
    if pair.verdict == "slower":
        reason = f"takes {pair.ratio.value:.3f} times as long, and surely {pair.sure.interval[0]:.3f} times"
    figures = (f"{pair.ratio.value:.3f}", _interval(pair.sure), *medians)
    return CiCase(pair.key, _OUTCOMES[pair.verdict], pair.verdict, reason, figures, measure_of(pair.new))


def _of_deliveries(found: DeliveryComparison) -> CiReport:
    then, now = found.baseline, found.new
    return CiReport(
        suite=f"compare.{suite_of(now.device)}",
        title=f"speed-up of {now.model} on {now.device.name}: {then.speedup:.3f}x, now {now.speedup:.3f}x",
        notes=tuple(comparison_notes(found)),
        columns=("ratio", "within", "baseline", "new"),
        cases=tuple(_delivery_cases(found)),
    )


def _delivery_cases(found: DeliveryComparison) -> Iterator[CiCase]:
    then, now = found.baseline, found.new
    moved = f"the speed-up went from {then.speedup:.3f}x to {now.speedup:.3f}x"
    told = None if _OUTCOMES[found.verdict] == "passed" else moved
    figures = (*_ratio(Ratio(0.0, 0.0, 0.0) / found.slowdown), f"{then.speedup:.3f}x", f"{now.speedup:.3f}x")
    yield CiCase("speed-up", _OUTCOMES[found.verdict], found.verdict, told, figures, None)
    if found.accuracy_change is not None and found.accuracy_tolerance is not None:
        accuracies = (f"{manifest.compressed.accuracy:.4g}" for manifest in (then, now))
        reason = f"changed by {found.accuracy_change:+.3g}" if found.accuracy_lost else None
        outcome: Outcome = "failed" if found.accuracy_lost else "passed"
        yield CiCase(
            now.metric or "accuracy", outcome, "lost" if reason else "kept", reason, ("", "", *accuracies), None
        )
    for name, ratio in found.latencies.named.items():
        before, after = getattr(then, name), getattr(now, name)
        figures = (*_ratio(ratio), f"{before.latency_ms:.4g} ms", f"{after.latency_ms:.4g} ms")
        yield CiCase(f"latency of the {name} network", "passed", "shown", None, figures, _measure(after))


def _measure(figures: Figures) -> Measure:
    low, high = figures.latency_ci_ms
    return Measure(figures.latency_ms, "ms", max(figures.latency_ms - low, high - figures.latency_ms))


def _ratio(ratio: Ratio) -> tuple[str, str]:
    return f"{ratio.value:.3f}", _interval(ratio)


def _interval(ratio: Ratio) -> str:
    return "{:.3f} to {:.3f}".format(*ratio.interval)
