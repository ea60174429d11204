"""``compress``: the whole job."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import trt_layermerge as layermerge
from trt_layermerge.cli.command_line import command_line
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    also_option,
    data_options,
    device_options,
    dry_run_option,
    explore_option,
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
from trt_layermerge.cli.sections import SectionedCommand, combined
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.cli.signing import sign_option
from trt_layermerge.progress import minutes, reporting

if TYPE_CHECKING:
    from trt_layermerge.pipeline.session import Session


@click.command("compress", cls=SectionedCommand)
@combined(
    network_options,
    plan_options,
    explore_option,
    refine_options,
    data_options,
    torch_options,
    device_options,
    rebuilds_option,
    fleet_option,
    also_option,
    training_options,
    sign_option,
    config_option,
    dry_run_option,
    json_option,
)
def command(as_json: bool, dry_run: bool, explore: bool, **given: Any) -> None:
    """Compress MODEL under a latency budget: measure, plan, merge, fine-tune, prove, deliver.

    Interrupted in any way, the same command goes on where it stopped. Exit code 8 says that the engine is delivered,
    but slower than planned.
    """
    session = layermerge.load(**settings_of(given))
    session = replace(session, job=replace(session.job, command=command_line()))
    session.require_task()
    if dry_run:
        _tell_plan(session, as_json, explore)
        return
    if explore:
        _explore(session, as_json)
        return
    if layermerge.train_along(session):
        return
    from trt_layermerge.report.terminal import print_result  # torch has been loaded by now

    with screen() as shown:
        result = layermerge.deliver(layermerge.compress(session, progress=shown), progress=shown)
    if as_json:
        print_json(result.as_json())
    print_result(result, stderr=as_json)
    if (objection := result.objection) is not None:
        raise objection


def _explore(session: Session, as_json: bool) -> None:
    from trt_layermerge.pipeline.explore import explore  # torch has been loaded by now
    from trt_layermerge.pipeline.training import leads
    from trt_layermerge.report.exploration import EXPLORATION
    from trt_layermerge.report.terminal import print_exploration

    if not leads(session):
        return
    with screen() as shown, reporting(shown) as reporter:
        found = explore(session, reporter)
    page = session.job.output / EXPLORATION
    if as_json:
        print_json(found.as_json() | {"report": str(page)})
    print_exploration(found, page, stderr=as_json)


def _tell_plan(session: Session, as_json: bool, explore: bool) -> None:
    from trt_layermerge.pipeline import dry_run  # torch has been loaded by now

    data, stages = dry_run.data_plan(session), (dry_run.exploration_plan if explore else dry_run.job_plan)(session)
    if as_json:
        told = {"data": list(data)} if data else {}
        print_json(told | {"stages": stages, "seconds": round(sum(stage["seconds"] for stage in stages), 1)})
        return
    for line in (*data, dry_run.memory_plan(session)):
        click.echo(line)
    for stage in stages:
        click.echo(f"{stage['stage']:<12} {stage['what']:<44} about {minutes(stage['seconds'])}")
    click.echo(f"{'together':<57} about {minutes(sum(stage['seconds'] for stage in stages))}")
