"""A comparison as a page to look at: the rows that CI is told of, a picture of them, and what was delivered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from trt_layermerge.ci.compared import report_of_comparison
from trt_layermerge.planning.plan import read_plan_bytes
from trt_layermerge.regression.comparable import Comparison
from trt_layermerge.regression.deliveries import DeliveryComparison
from trt_layermerge.regression.profiles import ProfileComparison
from trt_layermerge.regression.ratio import Ratio, Verdict
from trt_layermerge.report.charts import RatioRow, ratios_chart
from trt_layermerge.report.html import fates_in, write_page
from trt_layermerge.report.strips import strips
from trt_layermerge.report.summary import summarise

COLOURS: dict[Verdict, str] = {"slower": "identity", "unclear": "warn", "same": "keep", "faster": "fit"}
"""What a verdict looks like, by the page's colours."""


def write_comparison(path: Path, found: Comparison) -> None:
    """Write the page of a comparison.

    Args:
        path: Where to.
        found: What was found; its rows are those of ``report_of_comparison``.

    Raises:
        TableError: What a manifest holds is no plan.
    """
    rows = _profile_rows(found) if isinstance(found, ProfileComparison) else _delivery_rows(found)
    write_page(
        path,
        "comparison.html",
        report=report_of_comparison(found),
        objection=found.objection,
        colours=COLOURS,
        picture=ratios_chart(rows, found.tolerance) if rows else "",
        **({"sides": {}} if isinstance(found, ProfileComparison) else _deliveries(found)),
    )


def _profile_rows(found: ProfileComparison) -> list[RatioRow]:
    return [_row(pair.key, pair.ratio, pair.sure, pair.verdict, f"{pair.verdict}\n{pair.key}") for pair in found.pairs]


def _delivery_rows(found: DeliveryComparison) -> list[RatioRow]:
    speedup = Ratio(0.0, 0.0, 0.0) / found.slowdown
    rows = [_row("speed-up", speedup, speedup, found.verdict, "speed-up")]
    for name, ratio in found.latencies.named.items():
        rows.append(_row(f"latency of the {name}", ratio, ratio, "same", f"latency of the {name} network"))
    return rows


def _row(name: str, ratio: Ratio, sure: Ratio, verdict: Verdict, tip: str) -> RatioRow:
    low, high = sure.interval
    told = f"{tip}\n{ratio.value:.3f}x ({low:.3f} to {high:.3f})"
    return RatioRow(name, ratio.value, (low, high), COLOURS[verdict], told)


def _deliveries(found: DeliveryComparison) -> dict[str, Any]:
    """Both plans to one scale, and the figures of both that both have.

    Raises:
        TableError: What a manifest holds is no plan.
    """
    both = {"baseline": found.baseline, "new": found.new}
    for name, one in both.items():
        read_plan_bytes(f"the plan in the {name} manifest", json.dumps(one.plan).encode())
    longest = max(one.plan["original_ns"] for one in both.values())
    summaries = {name: summarise(one) for name, one in both.items()}
    named = [{row.name: row for row in summary.figures} for summary in summaries.values()]
    return {
        "sides": {
            name: replace(strips(one.blocks, longest, one.manifest.plan["latency_ns"]), before=())
            for name, one in summaries.items()
        },
        "figures": [[rows[name] for rows in named] for name in named[0] if name in named[1]],
        "fates": {name: told for one in summaries.values() for name, told in fates_in(one).items()},
    }
