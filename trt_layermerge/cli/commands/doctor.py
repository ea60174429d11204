"""``doctor``: what is here, what is missing, and does it work together?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_json
from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.files import require_writable
from trt_layermerge.report.wide_console import wide_console
from trt_layermerge.runtimes.base import BuildOptions
from trt_layermerge.runtimes.registry import get_runtime, runtime_kinds, usual_runtime_kind
from trt_layermerge.runtimes.survey import Finding, survey

if TYPE_CHECKING:
    from trt_layermerge.pipeline.first_run import FirstRun
    from trt_layermerge.pipeline.self_check import SelfCheck

_ABLE = ", ".join(kind.name for kind in runtime_kinds())


@click.command("doctor", cls=SectionedCommand)
@click.option("--runtime", help=f"Self-check in this one: {_ABLE}.  [default: the first that has all it needs here]")
@click.option("--report", type=PATH, help="Time forty standard blocks too, and write a file for whoever is to help.")
@click.option("--replay", type=PATH, help="Print what --report wrote; look at nothing here.")
@json_option
def command(runtime: str | None, report: Path | None, replay: Path | None, as_json: bool) -> None:
    """Say what this machine has and lacks, and check itself: merge, prove, build, time and verify a small network.

    The file of --report holds versions, what was built and timed, and errors in full; no paths, users or hosts.
    """
    from trt_layermerge.pipeline.self_check import check_itself  # it imports torch

    console = wide_console(markup=False)  # texts may be a stranger's
    if report is not None or replay is not None:
        _report_or_replay(runtime, report, replay, console, as_json)
        return
    findings = survey()
    if not as_json:
        _show_findings(findings, console)
    found = check_itself(get_runtime(runtime or usual_runtime_kind().name), BuildOptions())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings], "self_check": asdict(found)})
    else:
        _show_self_check(found, console)


def _report_or_replay(
    runtime: str | None, report: Path | None, replay: Path | None, console: Console, as_json: bool
) -> None:
    from trt_layermerge.pipeline.first_run import first_run, read_first_run, write_first_run  # likewise

    if report is not None and replay is not None:
        raise UsageError("--report writes a file and --replay reads one; pass one of them")
    if report is not None:
        require_writable(report.parent)
        write_first_run(report, first_run(runtime or usual_runtime_kind().name))
    run = read_first_run(report or cast(Path, replay))
    if as_json:
        print_json(asdict(run))
    else:
        _show_first_run(run, console)
    if report is not None and run.failures:
        failure = run.failures[0]
        raise RuntimeNotAvailableError(f"{failure.stage}: {failure.message}", hint=f"all of it is in {report}")


def _show_first_run(run: FirstRun, console: Console) -> None:
    _show_findings(run.findings, console)
    if run.self_check is not None:
        _show_self_check(run.self_check, console)
    table = Table("standard block", "us", "95 %", "MHz", "C", "")
    for row in run.rows:
        known = None not in (row.median_us, row.low_us, row.high_us)
        times = (f"{row.median_us:.1f}", f"{row.low_us:.1f} to {row.high_us:.1f}") if known else ("", "")
        condition = ("" if value is None else f"{value:.0f}" for value in (row.clock_mhz, row.temperature_c))
        table.add_row(row.signature, *times, *condition, "" if row.status == "ok" else f"{row.status}: {row.reason}")
    if run.rows:
        console.print(table)
    for failure in run.failures:
        console.print(f"{failure.stage} failed: {failure.message}\n{failure.trace}", highlight=False)
    about = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    console.print(f"{run.date}, {run.runtime}; {about}", highlight=False)


def _show_findings(findings: Iterable[Finding], console: Console) -> None:
    table = Table("", "here", "for")
    for finding in findings:
        table.add_row(finding.what, finding.found or Text("missing", style="bold"), finding.use)
    console.print(table)
    for finding in findings:
        if finding.fix is not None:
            console.print(f"{finding.what}: {finding.fix}", highlight=False)


def _show_self_check(found: SelfCheck, console: Console) -> None:
    device = found.device
    simulated = " (SIMULATED: no device was timed)" if device.simulated else ""
    console.print(
        f"\nself-check on {device.name}, {device.runtime} {device.runtime_version}{simulated}: a small network with "
        f"three layers merged into one,\nproved within {found.merge_error:.0e}, engine verified within "
        f"{found.engine_error:.0e}, {found.original_ms:.3f} ms -> {found.merged_ms:.3f} ms; {found.seconds:.0f} s",
        highlight=False,
    )
