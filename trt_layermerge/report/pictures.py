"""Which pictures the report of a delivery has, made of its summary and its evidence; nothing is drawn of no rows."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from trt_layermerge.delivery.manifest import Figures
from trt_layermerge.report.charts import Bar, Mark, agreement_chart, bars_chart, choices_chart, frontier_chart
from trt_layermerge.report.evidence import Evidence
from trt_layermerge.report.summary import Summary

_NONE = Markup("")


def pictures_of(summary: Summary, evidence: Evidence) -> dict[str, Markup]:
    """The pictures by name; empty ones where there is nothing to draw."""
    manifest = summary.manifest
    frontier = choices = _NONE
    if evidence.frontier:
        frontier = frontier_chart(evidence.frontier, list(_marks(summary, evidence)), manifest.plan["budget_ns"] / 1e6)
    if evidence.choices:
        choices = choices_chart(evidence.choices)
    return {
        "latency": _latencies(summary),
        "agreement": _agreement(summary),
        "frontier": frontier,
        "choices": choices,
    }


def _latencies(summary: Summary) -> Markup:
    told, manifest = summary.prediction, summary.manifest
    tip = f"predicted\n{told.predicted_ms:.4g} ms\nwhen it was planned {told.planned_ms:.4g} ms"
    bars = [
        _measured("original", manifest.original, "keep"),
        Bar("predicted", told.predicted_ms, None, "fit", tip),
        _measured("compressed", manifest.compressed, "accent"),
    ]
    return bars_chart("latency", bars, "Latency: original, predicted and measured")


def _measured(name: str, figures: Figures, colour: str) -> Bar:
    low, high = figures.latency_ci_ms
    tip = f"{name}, measured\n{figures.latency_ms:.4g} ms\n95 % interval {low:.4g} to {high:.4g} ms"
    return Bar(name, figures.latency_ms, (low, high), colour, tip)


def _agreement(summary: Summary) -> Markup:
    refined = summary.manifest.refined
    if not refined:
        return _NONE
    tips = [
        f"plan {one.rank}\npredicted {one.predicted_ms:.4g} ms\nmeasured {one.measured_ms:.4g} ms\n"
        f"held-out loss {one.held_out_loss:.4f}"
        for one in refined
    ]
    chosen = next((number for number, one in enumerate(refined) if one.chosen), None)
    return agreement_chart([(one.predicted_ms, one.measured_ms) for one in refined], tips, chosen)


def _marks(summary: Summary, evidence: Evidence) -> Iterator[Mark]:
    """What stands out of the frontier: other budgets, what was measured, and the chosen plan.

    What was measured is carried back to the speed that the machine had when the frontier's latencies were measured.
    """
    manifest, plan = summary.manifest, summary.manifest.plan
    yield Mark(
        "other budgets",
        tuple((one.latency_ns / 1e6, one.objective) for one in evidence.budgets),
        "fit",
        tuple(f"budget {one.budget}\n{one.speedup:.2f}x\nobjective {one.objective:+.4f}" for one in evidence.budgets),
    )
    refined = [(f"plan {one.rank}", one.measured_ms, one.objective) for one in manifest.refined]
    measured = refined or [("the engine", manifest.compressed.latency_ms, plan["objective"])]
    yield Mark(
        "measured",
        tuple((milliseconds / manifest.drift, objective) for _, milliseconds, objective in measured),
        "merge",
        tuple(f"{name}, measured\n{milliseconds:.4g} ms" for name, milliseconds, _ in measured),
        "D",
    )
    at = plan["latency_ns"] / 1e6
    tip = f"chosen plan\npredicted {at:.4g} ms\nbudget {plan['budget']}"
    yield Mark("chosen plan", ((at, plan["objective"]),), "accent", (tip,), "*")
