"""``importance``: measure what each choice does to the network."""

from __future__ import annotations

from typing import Any

import click

from trt_layermerge.cli.job_options import make_job
from trt_layermerge.cli.options import (
    combined,
    config_option,
    data_options,
    device_options,
    dry_run_option,
    json_option,
    network_options,
    torch_options,
)
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.locks import exclusive
from trt_layermerge.pipeline.dry_run import data_plan, importance_plan
from trt_layermerge.pipeline.job_frontier import worthwhile
from trt_layermerge.pipeline.measuring import importance_stage
from trt_layermerge.pipeline.session import open_session
from trt_layermerge.progress import minutes


@click.command("importance")
@combined(network_options, device_options, data_options, torch_options, config_option, dry_run_option, json_option)
@click.option(
    "--all", "everything", is_flag=True, help="Also choices that the profile knows to be slower than keeping."
)
def command(as_json: bool, dry_run: bool, everything: bool, **given: Any) -> None:
    """Measure the held-out loss of MODEL with each choice made alone; resumes where it stopped."""
    session = open_session(make_job(**given))
    session.require_task()
    # Without latencies nothing is known to be slow, and everything is measured.
    choices = session.choices if everything or not len(session.profile) else worthwhile(session)
    if dry_run:
        pending, seconds = importance_plan(session, choices)
        if as_json:
            told = {"data": list(data)} if (data := data_plan(session)) else {}
            table_file = str(session.job.importance_file)
            print_json(told | {"table": table_file, "to_measure": pending, "seconds": round(seconds, 1)})
        else:
            for line in data_plan(session):
                click.echo(line)
            click.echo(f"{pending} choices to measure into {session.job.importance_file}, about {minutes(seconds)}")
        return
    with exclusive(session.job.output), screen() as reporter:
        table = importance_stage(session, reporter, choices)
    if as_json:
        print_json({"table": str(table.path), "rows": len(table)})
    else:
        click.echo(f"{table.path}: {len(table)} choices")
