"""``importance``: measure what each choice does to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import trt_layermerge as layermerge
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    data_options,
    device_options,
    dry_run_option,
    fleet_option,
    json_option,
    network_options,
    settings_of,
    torch_options,
)
from trt_layermerge.cli.sections import SectionedCommand, combined, section
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.progress import minutes

if TYPE_CHECKING:
    from trt_layermerge.pipeline.session import Session


@click.command("importance", cls=SectionedCommand)
@combined(
    network_options,
    device_options,
    fleet_option,
    data_options,
    torch_options,
    config_option,
    dry_run_option,
    json_option,
)
@section(
    "Importance",
    click.option(
        "--all", "everything", is_flag=True, help="Measure choices, too, that the profile knows to save no latency."
    ),
)
def command(as_json: bool, dry_run: bool, everything: bool, **given: Any) -> None:
    """Measure the held-out loss of MODEL with each choice made alone; resumes where it stopped."""
    session = layermerge.load(**settings_of(given))
    session.require_task()
    if dry_run:
        _tell_plan(session, everything, as_json)
        return
    with screen() as shown:
        table = layermerge.measure_importance(session, everything=everything, progress=shown)
    if as_json:
        print_json({"table": str(table.path), "rows": len(table)})
    else:
        click.echo(f"{table.path}: {len(table)} choices")


def _tell_plan(session: Session, everything: bool, as_json: bool) -> None:
    # They import torch, which has been loaded by now.
    from trt_layermerge.pipeline.dry_run import data_plan, importance_plan, memory_plan
    from trt_layermerge.pipeline.job_frontier import wanted_choices

    table, data = session.job.importance_file, data_plan(session)
    pending, seconds = importance_plan(session, wanted_choices(session, everything))
    if as_json:
        told = {"data": list(data)} if data else {}
        print_json(told | {"table": str(table), "to_measure": pending, "seconds": round(seconds, 1)})
        return
    for line in (*data, memory_plan(session)):
        click.echo(line)
    click.echo(f"{pending} choices to measure into {table}, about {minutes(seconds)}")
