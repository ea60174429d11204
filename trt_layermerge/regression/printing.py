"""A comparison as it is printed: a short table for whoever reads a CI log, or everything as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trt_layermerge.delivery.manifest import Figures, Manifest
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.regression.comparable import Comparison
from trt_layermerge.regression.deliveries import DeliveryComparison
from trt_layermerge.regression.profiles import LoneRow, ProfileComparison, RowPair
from trt_layermerge.regression.ratio import Ratio

SHOWN = 10
"""Most lines of one kind; ``--json`` has them all."""


def comparison_lines(found: Comparison) -> Iterator[str]:
    """What was found, as a short table."""
    return _profile_lines(found) if isinstance(found, ProfileComparison) else _delivery_lines(found)


def comparison_notes(found: Comparison) -> Iterator[str]:
    """What is to be known of a comparison besides the figures of its rows."""
    if isinstance(found, ProfileComparison):
        yield from _circumstances(found.device.simulated, found.across)
        yield from _profile_notes(found)
    else:
        yield from _circumstances(found.new.simulated, found.across)
        yield from _delivery_notes(found)


def comparison_fields(found: Comparison) -> dict[str, Any]:
    """What was found and how the command ends, whole, for JSON."""
    return _profile_fields(found) if isinstance(found, ProfileComparison) else _delivery_fields(found)


def _profile_lines(found: ProfileComparison) -> Iterator[str]:
    yield from _circumstances(found.device.simulated, found.across)
    yield f"{'verdict':<8} {'ratio':>7}  {'(surely)':<20} {'baseline':>10} {'new, ms':>10}  operation"
    for pair in found.pairs[:SHOWN]:
        low, high = pair.sure.interval
        times = f"{pair.baseline.median_ns / 1e6:>10.4f} {pair.new.median_ns / 1e6:>10.4f}"
        within = f"({low:.3f} to {high:.3f})"
        yield f"{pair.verdict:<8} {pair.ratio.value:>6.3f}x  {within:<20} {times}  {pair.key}"
        if pair.reason is not None:
            yield f"{'':<8} {pair.reason}"
    if len(found.pairs) > SHOWN:
        yield f"... and {len(found.pairs) - SHOWN} more"
    yield from _profile_notes(found)


def _profile_notes(found: ProfileComparison) -> Iterator[str]:
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    yield f"rows     {len(found.pairs)} compared: {counts} (tolerance {found.tolerance:.1%})"
    fresh = len(found.pairs) - found.repeated
    yield f"machine  takes {_within(found.factor)} as long, by the median of {fresh} rows; taken out of every row"
    if found.scatter:
        yield f"scatter  {found.scatter:.2%} from run to run besides the noise of each; part of every interval"
    if found.clocks_mhz is not None:
        yield "clocks   {:.0f} MHz, then {:.0f} MHz".format(*found.clocks_mhz)
    if found.repeated:
        yield f"note     {found.repeated} rows are the baseline's own measurements: nothing was measured again for them"
    yield from _listed("degraded", found.degraded)
    yield from _listed("failed, and did not before", _lone(found.broken))
    yield from _listed("not compared", _lone(found.incomparable))
    yield from _listed("only in the baseline", found.missing)
    yield from _listed("only in the new one", found.added)


def _delivery_lines(found: DeliveryComparison) -> Iterator[str]:
    then, now = found.baseline, found.new
    yield from _circumstances(now.simulated, found.across)
    yield f"{'':<22} {'baseline':<34} {'new':<34} new over baseline"
    yield f"{'speed-up':<22} {then.speedup:<34.3f} {now.speedup:<34.3f} {_within(_inverse(found.slowdown))}"
    for name, ratio in found.latencies.named.items():
        label = f"{name}, ms"
        yield f"{label:<22} {_latency(getattr(then, name)):<34} {_latency(getattr(now, name)):<34} {_within(ratio)}"
    if found.accuracy_change is not None:
        told = f"{_accuracy(then):<34} {_accuracy(now):<34} {found.accuracy_change:+.3g}"
        evaluated = "not evaluated" if found.accuracy_tolerance is None else f"{found.accuracy_tolerance:g} may be lost"
        yield f"{'test ' + (now.metric or 'accuracy'):<22} {told} ({evaluated})"
    yield from _delivery_notes(found)


def _delivery_notes(found: DeliveryComparison) -> Iterator[str]:
    said = {"slower": "fell", "faster": "rose", "same": "is the same", "unclear": "is unclear"}[found.verdict]
    yield f"the speed-up {said} (tolerance {found.tolerance:.1%}; intervals of 95 %)"


def _circumstances(simulated: bool, across: Iterable[str]) -> Iterator[str]:
    """What must be known of a comparison before its figures."""
    if simulated:
        yield "SIMULATED  no device was timed: the latencies are no measurements"
    for one in across:
        yield f"across   {one}"


def _listed(name: str, rows: Iterable[str]) -> Iterator[str]:
    """How many rows there are of a kind, and the first of them."""
    keys = list(rows)
    if keys:
        yield f"{name}: {len(keys)}"
        yield from (f"  {key}" for key in keys[:SHOWN])
    if len(keys) > SHOWN:
        yield f"  ... and {len(keys) - SHOWN} more"


def _lone(rows: Iterable[LoneRow]) -> list[str]:
    return [f"{row.key}: {row.reason}" for row in rows]


def _within(ratio: Ratio) -> str:
    low, high = ratio.interval
    return f"{ratio.value:.3f}x ({low:.3f} to {high:.3f})"


def _inverse(ratio: Ratio) -> Ratio:
    return Ratio(0.0, 0.0, 0.0) / ratio


def _latency(figures: Figures) -> str:
    low, high = figures.latency_ci_ms
    return f"{figures.latency_ms:.4g} ({low:.4g} to {high:.4g})"


def _accuracy(manifest: Manifest) -> str:
    value = manifest.compressed.accuracy
    assert value is not None
    return f"{value:.2%}" if manifest.metric is None else f"{value:.4g}"


def _outcome(objection: LayerMergeError | None) -> dict[str, Any]:
    """What the command ends with."""
    if objection is None:
        return {"exit_code": 0, "objection": None}
    return {"exit_code": int(objection.exit_code), "objection": objection.message}


def _ratio_fields(ratio: Ratio) -> dict[str, Any]:
    return {"ratio": ratio.value, "ci": ratio.interval}


def _timing_fields(timing: Timing) -> dict[str, Any]:
    return {"median_ms": timing.median_ns / 1e6, "ci_ms": [timing.ci_low_ns / 1e6, timing.ci_high_ns / 1e6]}


def _pair_fields(pair: RowPair) -> dict[str, Any]:
    return {
        "signature": pair.key,
        "verdict": pair.verdict,
        "reason": pair.reason,
        **_ratio_fields(pair.ratio),
        "simultaneous_ci": pair.sure.interval,
        "baseline": _timing_fields(pair.baseline),
        "new": _timing_fields(pair.new),
    }


def _profile_fields(found: ProfileComparison) -> dict[str, Any]:
    return {
        "kind": "profiles",
        **_outcome(found.objection),
        "tolerance": found.tolerance,
        "across": found.across,
        "simulated": found.device.simulated,
        "machine": _ratio_fields(found.factor) | {"clocks_mhz": found.clocks_mhz},
        "scatter": found.scatter,
        "counts": found.counts,
        "repeated": found.repeated,
        "rows": [_pair_fields(pair) for pair in found.pairs],
        "degraded": found.degraded,
        "broken": [vars(row) for row in found.broken],
        "not_compared": [vars(row) for row in found.incomparable],
        "only_in_baseline": found.missing,
        "only_in_new": found.added,
    }


def _delivery_fields(found: DeliveryComparison) -> dict[str, Any]:
    return {
        "kind": "manifests",
        **_outcome(found.objection),
        "verdict": found.verdict,
        "tolerance": found.tolerance,
        "across": found.across,
        "simulated": found.new.simulated,
        "speedup": {"baseline": found.baseline.speedup, "new": found.new.speedup}
        | _ratio_fields(_inverse(found.slowdown)),
        **{name: _ratio_fields(ratio) for name, ratio in found.latencies.named.items()},
        "accuracy": {
            "baseline": found.baseline.compressed.accuracy,
            "new": found.new.compressed.accuracy,
            "change": found.accuracy_change,
            "tolerance": found.accuracy_tolerance,
        },
    }
