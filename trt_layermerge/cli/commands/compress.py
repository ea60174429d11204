"""``compress``: the whole job."""

from __future__ import annotations

from typing import Any

import click

from trt_layermerge.cli.job_options import make_job
from trt_layermerge.cli.options import (
    also_option,
    combined,
    config_option,
    data_options,
    device_options,
    dry_run_option,
    explore_option,
    json_option,
    network_options,
    plan_options,
    refine_options,
    torch_options,
    training_options,
)
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.pipeline.compression import compress
from trt_layermerge.pipeline.dry_run import data_plan, exploration_plan, job_plan
from trt_layermerge.pipeline.explore import explore as explore_budgets
from trt_layermerge.pipeline.session import Session, open_session
from trt_layermerge.pipeline.training import leads, share_training
from trt_layermerge.progress import minutes
from trt_layermerge.report.exploration import EXPLORATION
from trt_layermerge.report.terminal import print_exploration, print_result


@click.command("compress")
@combined(
    network_options,
    device_options,
    data_options,
    torch_options,
    plan_options,
    refine_options,
    also_option,
    training_options,
    config_option,
    explore_option,
    dry_run_option,
    json_option,
)
def command(as_json: bool, dry_run: bool, explore: bool, **given: Any) -> None:
    """Compress MODEL under a latency budget: measure, plan, merge, fine-tune, prove, deliver.

    Interrupted in any way, the same command goes on where it stopped.
    """
    session = open_session(make_job(**given))
    session.require_task()
    if dry_run:
        data, stages = data_plan(session), exploration_plan(session) if explore else job_plan(session)
        if as_json:
            told = {"data": list(data)} if data else {}
            print_json(told | {"stages": stages, "seconds": round(sum(stage["seconds"] for stage in stages), 1)})
            return
        for line in data:
            click.echo(line)
        for stage in stages:
            click.echo(f"{stage['stage']:<12} {stage['what']:<44} about {minutes(stage['seconds'])}")
        click.echo(f"{'together':<57} about {minutes(sum(stage['seconds'] for stage in stages))}")
        return
    if not leads(session):
        if not explore:
            share_training(session)
        return
    if explore:
        _explore(session, as_json)
        return
    with screen() as reporter:
        result = compress(session, reporter)
    if as_json:
        print_json(result.as_json())
    print_result(result, stderr=as_json)


def _explore(session: Session, as_json: bool) -> None:
    with screen() as reporter:
        found = explore_budgets(session, reporter)
    if as_json:
        print_json(found.as_json() | {"report": str(session.job.output / EXPLORATION)})
    print_exploration(found, session.job.output / EXPLORATION, stderr=as_json)
