"""``compress``: the whole job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import trt_layermerge as layermerge
from trt_layermerge.cli.options import (
    also_option,
    config_option,
    data_options,
    device_options,
    dry_run_option,
    fleet_option,
    json_option,
    network_options,
    plan_options,
    rebuilds_option,
    refine_options,
    settings_of,
    torch_options,
    training_options,
)
from trt_layermerge.cli.sections import Command, combined
from trt_layermerge.cli.show import minutes, print_json, screen

if TYPE_CHECKING:
    from trt_layermerge.pipeline.session import Session


@click.command("compress", cls=Command)
@combined(
    network_options,
    plan_options,
    refine_options,
    data_options,
    torch_options,
    device_options,
    rebuilds_option,
    fleet_option,
    also_option,
    training_options,
    config_option,
    dry_run_option,
    json_option,
)
def command(as_json: bool, dry_run: bool, **given: Any) -> None:
    """Compress MODEL under a latency budget: measure, plan, merge, fine-tune, prove, deliver.

    Interrupted in any way, the same command goes on where it stopped.
    """
    session = layermerge.load(**settings_of(given))
    session.require_task()
    if dry_run:
        _tell_plan(session, as_json)
        return
    if layermerge.train_along(session):
        return
    from trt_layermerge.report.terminal import print_result  # torch has been loaded by now

    with screen() as shown:
        result = layermerge.deliver(layermerge.compress(session, progress=shown), progress=shown)
    if as_json:
        print_json(result.as_json())
    print_result(result, stderr=as_json)


def _tell_plan(session: Session, as_json: bool) -> None:
    from trt_layermerge.pipeline.dry_run import data_plan, job_plan, memory_plan  # torch has been loaded by now

    data, stages = data_plan(session), job_plan(session)
    if as_json:
        told = {"data": list(data)} if data else {}
        print_json(told | {"stages": stages, "seconds": round(sum(stage["seconds"] for stage in stages), 1)})
        return
    for line in (*data, memory_plan(session)):
        click.echo(line)
    for stage in stages:
        click.echo(f"{stage['stage']:<12} {stage['what']:<44} about {minutes(stage['seconds'])}")
    click.echo(f"{'together':<57} about {minutes(sum(stage['seconds'] for stage in stages))}")
