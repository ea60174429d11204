"""The pages of results: tables and pictures from benchmarks/results/; the words between them are people's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from .cases import CASES, ROOT
from .registry import METHODS
from .standings import Group, Row, SeedSpread, grouped, mean_and_spread, points_gained, side_by_side, why_not

DOCS, RESULTS, PICTURES = ROOT / "docs", ROOT / "benchmarks" / "results", ROOT / "docs" / "results"
MARKED = "<!-- {name}: made by benchmarks.methods -->\n{text}<!-- end of {name} -->\n"

SLOWEST = 0.8
"""Times as fast as the original: slower networks are in the table alone."""

COLOURS = {
    "joint": "#1f77b4", "joint-width": "#0b3d91", "width": "#17becf", "torch-pruning": "#d62728",
    "layermerge": "#2ca02c", "depth": "#98df8a", "layer-only": "#bcbd22", "elc": "#8c564b", "whole-blocks": "#e377c2",
    "even-cut": "#7f7f7f", "int8": "#ff7f0e", "joint-int8": "#9467bd", "joint-width-int8": "#5b2c83",
}  # fmt: skip
"""Ours are blue, and violet in INT8."""


def write_page() -> None:
    """Put what was measured into its page; a network that has no place in it yet gets one at its end."""
    for name, case in CASES.items():
        path, page = RESULTS / f"{name}.json", DOCS / case.page
        if path.exists():
            results = json.loads(path.read_bytes())
            draw(results, PICTURES / f"{name}.svg")
            page.write_text(replaced(page.read_text(), name, "\n".join(section(name, results)) + "\n"))


def replaced(text: str, name: str, made: str) -> str:
    """A page with the part of a name made anew."""
    part = MARKED.format(name=name, text=made)
    pattern = re.escape(MARKED.format(name=name, text="@")).replace("@", ".*?")
    if re.search(pattern, text, re.DOTALL) is None:
        return f"{text}\n## {CASES[name].title}\n\n{part}"
    return re.sub(pattern, lambda _: part, text, flags=re.DOTALL)


def section(name: str, results: Mapping[str, Any]) -> Iterator[str]:
    """The part of a network, line by line."""
    original = results["original"]
    yield f"![Accuracy against latency of {CASES[name].title}](results/{name}.svg)"
    yield ""
    yield f"The original: {original['latency_ms']:.3f} ms, {original['accuracy']:.2%}. {results['about']}"
    places = sorted({row["trained_on"] for row in results["rows"] if row.get("trained_on", "CPU") != "CPU"})
    if places:
        yield f"Rows without CPU minutes were made on: {', '.join(places)}, in float32 without TF32."
    groups, before = grouped(results["rows"]), original["accuracy"]
    if (spread := SeedSpread.of(groups)) is not None:
        yield (
            f"Seeds of one network lie {spread.points:.2f} points apart (standard deviation over all trained rows, "
            f"{spread.degrees} degrees of freedom); *more than chance* is beyond two standard errors by that."
        )
    for trained in (True, False):
        chosen = {key: rows for key, rows in groups.items() if key[2] == trained}
        if chosen:
            yield from ("", f"**{'Fine-tuned' if trained else 'Without any training'}**: percentage points", "")
            yield from side_by_side(groups, before, trained=trained)
            yield from ("", "Each row:", "")
            yield from table(chosen, before)


def table(groups: Mapping[Group, Sequence[Row]], before: float) -> Iterator[str]:
    """Rows of equal method and budget as one, over their seeds."""
    yield "| asked for | method | measured | points, each seed | mean | prediction | CPU min | setting |"
    yield "|---|---|---|---|---|---|---|---|"
    for (budget, method, _), rows in sorted(
        groups.items(), key=lambda one: (one[0][0], list(METHODS).index(one[0][1]))
    ):
        first, title = rows[0], METHODS[method].title
        if why := why_not(first):
            yield f"| {budget:g}x | {title} | {why} | | | | | |"
            continue
        asked = "" if METHODS[method].converts is not None else f"{budget:g}x"
        lost = points_gained(rows, before)
        yield (
            f"| {asked} | {title} | {_measured(first)} "
            f"| {', '.join(f'{one:+.2f}' for one in lost)} | {mean_and_spread(lost)} "
            f"| {_error(first)} | {_cost(rows)} | {first['setting']} |"
        )


def _measured(row: Row) -> str:
    """How fast a row's network is, with its interval; one that is not timed yet as it was before it was trained."""
    if "speedup" not in row:
        return f"{row['aimed']:.2f}x before training" if "aimed" in row else "not timed yet"
    return f"{row['speedup']:.2f}x ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"


def _cost(rows: Sequence[Row]) -> str:
    """Processor minutes of a row, where a processor did it."""
    here = [row["cpu_seconds"] for row in rows if row.get("trained_on", "CPU") == "CPU"]
    return f"{mean(here) / 60:.1f}" if here else ""


def _error(row: Row) -> str:
    """How much faster than predicted."""
    return f"{row['speedup'] / row['predicted'] - 1:+.1%}" if row.get("predicted") and "speedup" in row else ""


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Accuracy against latency, as SVG: mean and standard deviation of the seeds of each trained network."""
    path.parent.mkdir(exist_ok=True)
    with rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        original = results["original"]
        axes.plot(original["latency_ms"], 100 * original["accuracy"], "k*", markersize=10, label="original")
        for method, title in ((name, one.title) for name, one in METHODS.items()):
            found = sorted(_networks(results["rows"], method, original["latency_ms"]))
            if found:
                line = "-" if METHODS[method].settings and method.startswith(("joint", "torch")) else ""
                ms, accuracy, spread = zip(*found, strict=True)
                axes.errorbar(
                    ms, accuracy, spread if any(spread) else None, linestyle=line, marker="o", markersize=4,
                    elinewidth=0.8, capsize=2, color=COLOURS[method], label=title,
                )  # fmt: skip
        axes.set_xlabel("latency, ms, of the original's in one run")
        axes.set_ylabel("test accuracy, %")
        axes.grid(True, linewidth=0.4)
        axes.legend(fontsize=7)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _networks(rows: Sequence[Row], method: str, original_ms: float) -> Iterator[tuple[float, float, float]]:
    """Latency, accuracy and its spread; networks that are much slower than the original would squeeze the rest."""
    mine = [row for row in rows if row["method"] == method and row["seed"] is not None]
    mine = [row for row in mine if row.get("speedup", 0.0) > SLOWEST]
    for group in grouped(mine).values():
        found = points_gained(group)
        yield original_ms / group[0]["speedup"], mean(found), stdev(found) if len(found) > 1 else 0.0
