"""``profile``: fill the device's latency lookup table."""

from __future__ import annotations

from dataclasses import replace
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
)
from trt_layermerge.cli.show import minutes, print_json, screen
from trt_layermerge.cli.variants import CommandWithVariants
from trt_layermerge.pipeline.measuring import profile_plan, profile_stage
from trt_layermerge.pipeline.session import open_session


@click.command(
    "profile",
    cls=CommandWithVariants,
    variants={"estimate": "trt_layermerge.cli.commands.profile_estimate"},
    epilog="profile estimate: a table of convolutions, on a card that is elsewhere; see profile estimate -h.",
)
@combined(network_options, device_options, data_options, config_option, dry_run_option, json_option)
@click.option("--again", is_flag=True, help="Also measure once more what was degraded: too noisy to be sure of.")
def command(as_json: bool, dry_run: bool, again: bool, **given: Any) -> None:
    """Measure every candidate block of MODEL on this device; what the profile holds is not measured again."""
    job = make_job(**given)
    session = open_session(replace(job, policy=replace(job.policy, again=again)))
    pending, seconds = profile_plan(session)
    if dry_run:
        found = {"profile": str(session.profile.path), "to_measure": pending, "seconds": round(seconds, 1)}
        if as_json:
            print_json(found)
        else:
            click.echo(f"{pending} signatures to measure into {session.profile.path}, about {minutes(seconds)}")
        return
    with screen() as reporter:
        profile_stage(session, reporter)
    rows = [row.status for row in session.profile]
    counts = {status: rows.count(status) for status in ("ok", "degraded", "failed")}
    simulated = session.profile.key.device.simulated
    if as_json:
        about = {"simulated": True} if simulated else {}
        print_json({"profile": str(session.profile.path), "measured": pending, "rows": len(rows), **counts, **about})
    else:
        verb = "SIMULATED, no device was timed" if simulated else "measured"
        states = ", ".join(f"{count} {status}" for status, count in counts.items())
        click.echo(f"{session.profile.path}: {pending} {verb}; {len(rows)} signatures in all: {states}")
