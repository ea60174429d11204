"""``solve``: pick what to keep, merge and drop, from the tables of the other stages."""

from __future__ import annotations

from typing import Any

import click

from trt_layermerge.cli.options import (
    combined,
    config_option,
    data_options,
    device_options,
    json_option,
    make_job,
    network_options,
    plan_options,
)
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.pipeline.stages import baseline_stage, importance_table, load, solve_stage


@click.command("solve")
@combined(network_options, device_options, data_options, plan_options, config_option, json_option)
def command(as_json: bool, **given: Any) -> None:
    """Plan MODEL for a latency budget, from the profile and the importance table; writes plan.json."""
    loaded = load(make_job(**given))
    table = importance_table(loaded)
    with screen() as reporter:
        baseline = baseline_stage(loaded, reporter)
    file = solve_stage(loaded, baseline, table)
    plan = file.plan
    if as_json:
        print_json(
            {
                "method": plan.method,
                "budget_ms": file.certificate.budget_ns / 1e6,
                "latency_ms": plan.latency_ms,
                "original_ms": plan.original_ns / 1e6,
                "objective": plan.objective,
                "plan": str(loaded.job.plan_file),
                "blocks": [
                    {
                        "chain": item.chain,
                        "start": item.start,
                        "end": item.end,
                        "choice": item.key,
                        "latency_ms": item.latency_ns / 1e6,
                        "importance": item.value,
                    }
                    for item in plan.items
                ],
            }
        )
        return
    for item in plan.items:
        click.echo(f"{item.key:<32} {item.latency_ns / 1e6:8.4f} ms  {item.value:+.4f}")
    click.echo(f"predicted {plan.latency_ms:.3f} ms of {plan.original_ns / 1e6:.3f} ms: {plan.speedup:.2f}x")
