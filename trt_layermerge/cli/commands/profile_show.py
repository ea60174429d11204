"""``profile show``: what a profile holds, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from trt_layermerge.ci.case import printable
from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_json
from trt_layermerge.cli.shown_trtexec import show_trtexec_export
from trt_layermerge.latency.profile import Profile, ProfileRow
from trt_layermerge.latency.trtexec_exports import is_trtexec_export

SHOWN = 20
"""Rows that are printed without ``--all``: those that take longest."""


@click.command("show", cls=SectionedCommand)
@click.argument("profile", type=PATH)
@click.option("--all", "everything", is_flag=True, help=f"All rows, not the {SHOWN} that take longest.")
@json_option
def command(profile: Path, everything: bool, as_json: bool) -> None:
    """Show what the file PROFILE holds: its device, how sure its rows are, and those that take longest.

    An export of trtexec is shown as rows, too: --exportTimes, --exportProfile, --exportLayerInfo.
    """
    if is_trtexec_export(profile):
        show_trtexec_export(profile, everything=everything, as_json=as_json)
        return
    found = Profile.read(profile)
    counts = dict(Counter(row.status for row in found))
    rows = sorted(found, key=lambda row: (-_median_ns(row), row.signature.key))
    if as_json:
        print_json({"key": found.key.record, "rows": len(rows), **counts, "slowest": [_fields(row) for row in rows]})
        return
    for name, value in found.key.record.items():
        if value not in (None, "", False):
            click.echo(printable(f"{name:<16} {value}"))
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"{'rows':<16} {len(rows)}: {states or 'none'}")
    if found.build_spread is not None:
        count = sum(row.timing is not None and row.timing.builds > 1 for row in rows)
        click.echo(f"{'builds':<16} differ by {found.build_spread:.1%} (standard deviation, of {count} operations)")
    click.echo(f"{'latency, ms':>12} {'within':<22} {'99 % of runs':<12} {'by the host':<11} {'status':<9} operation")
    for row in rows if everything else rows[:SHOWN]:
        click.echo(printable(_line(row)))
    if not everything and len(rows) > SHOWN:
        click.echo(f"... and {len(rows) - SHOWN} more; --all shows them")


def _median_ns(row: ProfileRow) -> int:
    return -1 if row.timing is None else row.timing.median_ns


def _line(row: ProfileRow) -> str:
    times = f"{'':>12} {'':<22} {'':<12} {'':<11}"
    if row.timing is not None:
        within = f"({row.timing.ci_low_ns / 1e6:.4f} to {row.timing.ci_high_ns / 1e6:.4f})"
        times = f"{row.timing.median_ns / 1e6:>12.4f} {within:<22} {_ms(row.timing.p99_ns):<12} {_ms(row.host_ns):<11}"
    return f"{times} {row.status:<9} {row.signature.key}{'' if row.reason is None else f': {row.reason}'}"


def _ms(ns: int | None) -> str:
    return "" if ns is None else f"{ns / 1e6:.4f}"


def _fields(row: ProfileRow) -> dict[str, object]:
    timing = None if row.timing is None else asdict(row.timing)
    return {
        "signature": row.signature.key,
        "status": row.status,
        "reason": row.reason,
        "timing": timing,
        "host_ns": row.host_ns,
    }
