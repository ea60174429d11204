"""``profile``: fill the device's latency lookup table."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import trt_layermerge as layermerge
from trt_layermerge.ci.measured import report_of_profile
from trt_layermerge.cli.budgeted import BudgetOptions, budget_options, budgeted_fields, budgeted_lines
from trt_layermerge.cli.ci_files import CiFiles, ci_options
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    data_options,
    device_options,
    dry_run_option,
    fleet_option,
    json_option,
    rebuilds_option,
    settings_of,
    several_network_options,
)
from trt_layermerge.cli.parsing import read_share
from trt_layermerge.cli.sections import combined, option, section
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.cli.variants import CommandWithVariants
from trt_layermerge.errors import UsageError
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.progress import minutes

if TYPE_CHECKING:
    from trt_layermerge.pipeline.budgeted_profiling import BudgetedProfile
    from trt_layermerge.pipeline.profiling import ProfilingPlan
    from trt_layermerge.pipeline.session import Session

VARIANTS = {
    "validate": "predicted against measured latencies of whole plans",
    "show": "what a file holds",
    "merge": "several files of one device as one",
    "export": "a file as CSV",
    "estimate": "a table of convolutions, on a card that is elsewhere",
}


@click.command(
    "profile",
    cls=CommandWithVariants,
    variants={name: f"trt_layermerge.cli.commands.profile_{name}" for name in VARIANTS},
    epilog="; ".join(f"profile {name}: {what}" for name, what in VARIANTS.items()) + "; see profile show -h.",
)
@combined(
    several_network_options,
    device_options,
    rebuilds_option,
    fleet_option,
    data_options,
    ci_options,
    config_option,
    dry_run_option,
    json_option,
)
@section(
    "Measuring",
    option("--again", is_flag=True, help="Also measure once more what was degraded: too noisy to be sure of."),
    option(
        "--interval",
        callback=read_share,
        default=f"{MeasurementPolicy.relative_ci:.0%}",
        show_default=True,
        metavar="SHARE",
        help="Measure until the 95 % interval of a latency reaches no further than this to either side.",
    ),
    option(
        "--builds",
        type=click.IntRange(1),
        default=MeasurementPolicy.builds,
        show_default=True,
        metavar="N",
        help="Let N engines of an operation take turns: what differs between builds is then part of its interval.",
    ),
    option(
        "--max-minutes",
        type=click.FloatRange(0),
        metavar="M",
        help="Begin nothing new after that; the same command goes on with the rest.",
    ),
    *budget_options,
)
def command(
    model: tuple[str, ...],
    as_json: bool,
    dry_run: bool,
    max_minutes: float | None,
    for_budget: str | None,
    **given: Any,
) -> None:
    """Measure every candidate block of the networks MODEL... on this device, into one table.

    What the table holds is not measured again; rows of another driver are. With --for-budget, what the best plan for
    that budget rests on is measured, and no more.
    """
    wanted = BudgetOptions(for_budget, given.pop("importance"), given.pop("prior"))
    _require_one(model, wanted, given["weights"])
    ci_files = CiFiles(**{field.name: given.pop(field.name) for field in fields(CiFiles)})
    ci_files.require_writable()
    sessions = layermerge.load_several(model, **settings_of(given | {"budget": for_budget}))
    # Torch has been loaded by now.
    from trt_layermerge.pipeline.profiling import profiling_plan, rows_left, wanted_signatures

    plan = profiling_plan(sessions)
    if dry_run:
        _tell_plan(plan, as_json)
        return
    began = time.monotonic()
    with screen() as shown:
        if for_budget is None:
            found, measured = None, layermerge.profile(*sessions, max_minutes=max_minutes, progress=shown).measured
        else:
            found = wanted.profile(sessions[0], max_minutes, shown)
            measured = found.measured
    signatures = [one for session in sessions for one in wanted_signatures(session)]
    notes = [f"{one.model}: {one.operations} operations" for one in plan.networks]
    ci_files.write(lambda: report_of_profile(sessions[0].profile, signatures, [*notes, f"{measured} measured now"]))
    now, left = profiling_plan(sessions), rows_left(sessions)
    _tell(sessions, now, left, measured, time.monotonic() - began, as_json, found)


def _require_one(model: Sequence[str], wanted: BudgetOptions, weights: Path | None) -> None:
    """See that what is of one network is asked of one.

    Raises:
        UsageError: It is not.
    """
    wanted.require()
    if len(model) > 1 and weights is not None:
        raise UsageError(
            f"--weights is a checkpoint of one network, and there are {len(model)}",
            hint="leave it out: no latency depends on weights",
        )
    if len(model) > 1 and wanted.budget is not None:
        raise UsageError(f"--for-budget plans for one network, and there are {len(model)}", hint="profile one by one")


def _tell_plan(plan: ProfilingPlan, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "profile": str(plan.path),
                "networks": [asdict(one) for one in plan.networks],
                "to_measure": plan.missing,
                "seconds": round(plan.seconds, 1),
            }
        )
        return
    if len(plan.networks) > 1:
        for one in plan.networks:
            click.echo(f"{one.model}: {one.missing} of {one.operations} operations to measure")
    click.echo(f"{plan.missing} signatures to measure into {plan.path}, about {minutes(plan.seconds)}")


def _tell(
    sessions: Sequence[Session],
    now: ProfilingPlan,
    left: int,
    measured: int,
    seconds: float,
    as_json: bool,
    found: BudgetedProfile | None,
) -> None:
    profile = sessions[0].profile
    told = Counter(row.status for row in profile)
    counts = {status: told[status] for status in ("ok", "degraded", "failed")}
    simulated = profile.key.device.simulated
    if as_json:
        about = {"simulated": True} if simulated else {}
        of = {"profile": str(now.path), "networks": [asdict(one) for one in now.networks]}
        more = {"measured": measured, "left": left, "seconds": round(seconds, 1), "rows": len(profile)}
        settled = {} if found is None else {"for_budget": budgeted_fields(found)}
        print_json(of | more | counts | about | settled)
        return
    verb = "SIMULATED, no device was timed" if simulated else f"measured in {minutes(seconds)}"
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"{now.path}: {measured} {verb}; {len(profile)} signatures in all: {states}")
    if found is not None:
        click.echo("\n".join(budgeted_lines(found)))
    elif left:
        click.echo(f"{left} are left, for the time was up; the same command goes on with them")
