"""``doctor``: what is here, what is missing, and does it work together?"""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from trt_layermerge.cli.options import json_option
from trt_layermerge.cli.show import print_json
from trt_layermerge.pipeline.self_check import SelfCheck, check_itself
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime, runtime_kinds, usual_runtime_kind
from trt_layermerge.runtimes.survey import Finding, survey

_ABLE = ", ".join(kind.name for kind in runtime_kinds())


@click.command("doctor")
@click.option("--runtime", help=f"Self-check in this one: {_ABLE}.  [default: the first that has all it needs here]")
@json_option
def command(runtime: str | None, as_json: bool) -> None:
    """Say what this machine has and lacks, and check itself: merge, prove, build, time and verify a small network."""
    findings = survey()
    console = Console()
    if not as_json:
        _show_findings(findings, console)
    found = check_itself(get_runtime(runtime or usual_runtime_kind().name), BuildOptions())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "self_check": asdict(found)})
    else:
        _show_self_check(found, console)


def _show_findings(findings: list[Finding], console: Console) -> None:
    table = Table("", "here", "for")
    for finding in findings:
        table.add_row(finding.what, finding.found or "[bold]missing[/]", finding.use)
    console.print(table)
    for finding in findings:
        if finding.fix is not None:
            console.print(f"{finding.what}: {finding.fix}", markup=False, highlight=False)


def _show_self_check(found: SelfCheck, console: Console) -> None:
    device = found.device
    simulated = " (SIMULATED: no device was timed)" if device.simulated else ""
    console.print(
        f"\nself-check on {device.name}, {device.runtime} {device.runtime_version}{simulated}: a small network with "
        f"three layers merged into one,\nproved within {found.merge_error:.0e}, engine verified within "
        f"{found.engine_error:.0e}, {found.original_ms:.3f} ms -> {found.merged_ms:.3f} ms; {found.seconds:.0f} s",
        markup=False,
        highlight=False,
    )
