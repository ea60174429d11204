"""What ``profile show`` prints of an export of trtexec."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from trt_layermerge.ci.case import printable
from trt_layermerge.cli.show import print_json
from trt_layermerge.latency.trtexec_exports import LayerInfos, LayerTimes, RunTimes, read_trtexec_export

_MOST = 20
"""Layers that are printed without ``--all``."""


def show_trtexec_export(path: Path, *, everything: bool, as_json: bool) -> None:
    """Print one.

    Raises:
        TableError: The file is none.
    """
    found = read_trtexec_export(path)
    if as_json:
        print_json(_fields(found))
        return
    lines = _lines(found)
    for line in lines if everything else lines[: _MOST + 1]:
        click.echo(printable(line))
    if not everything and len(lines) > _MOST + 1:
        click.echo(f"... and {len(lines) - _MOST - 1} more; --all shows them")


def _fields(found: RunTimes | LayerTimes | LayerInfos) -> dict[str, object]:
    if isinstance(found, RunTimes):
        return {"runs": len(found.compute_ms), "timing": asdict(found.timing), "host_ns": _host_ns(found)}
    return asdict(found)


def _host_ns(found: RunTimes) -> int:
    return round(1e6 * float(np.median(found.latency_ms)))


def _lines(found: RunTimes | LayerTimes | LayerInfos) -> list[str]:
    if isinstance(found, RunTimes):
        timing = found.timing
        median, low, high, p90, p99 = (
            f"{(ns or 0) / 1e6:.4f}"
            for ns in (timing.median_ns, timing.ci_low_ns, timing.ci_high_ns, timing.p90_ns, timing.p99_ns)
        )
        return [
            f"{timing.samples} runs",
            f"on the GPU, ms    {median} ({low} to {high}), 90 % within {p90}, 99 % within {p99}",
            f"with copies, ms   {_host_ns(found) / 1e6:.4f}",
        ]
    if isinstance(found, LayerTimes):
        rows = sorted(found.layers, key=lambda row: -row.time_ms)
        head = f"{'average, ms':>12} {'median, ms':>11} {'share':>7}  layer, {found.count} runs"
        each = [(f"{row.average_ms:.4f}", "" if row.median_ms is None else f"{row.median_ms:.4f}", row) for row in rows]
        return [head, *(f"{mean:>12} {median:>11} {row.percentage:>6.1f}%  {row.name}" for mean, median, row in each)]
    about = [f"{row.type:<22} {', '.join(row.outputs):<40} {row.name} {row.tactic}".rstrip() for row in found.layers]
    return [f"{'type':<22} {'gives':<40} layer and tactic", *about]
