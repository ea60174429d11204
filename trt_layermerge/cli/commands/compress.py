"""``compress``: the whole job."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.table import Table

from trt_layermerge.cli.job import make_job
from trt_layermerge.cli.options import (
    also_option,
    combined,
    config_option,
    data_options,
    device_options,
    dry_run_option,
    json_option,
    network_options,
    plan_options,
    refine_options,
    torch_options,
    training_options,
)
from trt_layermerge.cli.show import minutes, print_json, screen
from trt_layermerge.delivery.manifest import ConversionFigures
from trt_layermerge.pipeline.compress import Result, compress
from trt_layermerge.pipeline.estimate import job_plan
from trt_layermerge.pipeline.loading import load
from trt_layermerge.pipeline.training import leads, share_training


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
    dry_run_option,
    json_option,
)
def command(as_json: bool, dry_run: bool, **given: Any) -> None:
    """Compress MODEL under a latency budget: measure, plan, merge, fine-tune, prove, deliver.

    Interrupted in any way, the same command goes on where it stopped.
    """
    loaded = load(make_job(**given))
    loaded.require_task()
    if dry_run:
        stages = job_plan(loaded)
        if as_json:
            print_json({"stages": stages, "seconds": round(sum(stage["seconds"] for stage in stages), 1)})
            return
        for stage in stages:
            click.echo(f"{stage['stage']:<12} {stage['what']:<44} about {minutes(stage['seconds'])}")
        click.echo(f"{'together':<57} about {minutes(sum(stage['seconds'] for stage in stages))}")
        return
    if not leads(loaded):
        share_training(loaded)
        return
    with screen() as reporter:
        result = compress(loaded, reporter)
    if as_json:
        print_json(result.as_json())
    _show(result, Console(stderr=as_json))


def _show(result: Result, console: Console) -> None:
    manifest, proof = result.manifest, result.manifest.proof
    original, compressed = manifest.original, manifest.compressed
    device = manifest.device
    table = Table("", "original", "compressed", "change", title=manifest.model)
    table.add_row(
        "latency, ms",
        *(f"{f.latency_ms:.3f} ({f.latency_ci_ms[0]:.3f} to {f.latency_ci_ms[1]:.3f})" for f in (original, compressed)),
        f"{manifest.speedup:.2f}x",
    )
    if original.accuracy is not None and compressed.accuracy is not None:
        before, after = original.accuracy, compressed.accuracy
        if manifest.metric is None:
            told = f"{before:.2%}", f"{after:.2%}", f"{100 * (after - before):+.2f} points"
        else:
            told = f"{before:.4g}", f"{after:.4g}", f"{after - before:+.2g}"
        table.add_row(f"test {manifest.metric or 'accuracy'}", *told)
    for name in ("layers", "depth", "parameters", "flops", "peak_activation_bytes"):
        before, after = getattr(original, name), getattr(compressed, name)
        table.add_row(name.replace("_", " "), f"{before:,}", f"{after:,}", f"{after / before - 1:+.0%}")
    console.print(table)
    off = manifest.predicted_latency_ms / compressed.latency_ms - 1
    if manifest.simulated:
        console.print("SIMULATED  no device was timed: the latencies are no measurements")
    console.print(f"measured   {device.runtime} {device.runtime_version} on {device.name}, batch {manifest.batch},")
    console.print(f"           {device.threads} thread(s), {device.precision}; medians with 95 % intervals, in turns")
    if device.settings:
        console.print(f"           {device.settings}")
    console.print(
        f"predicted  {manifest.predicted_latency_ms:.3f} ms, {off:+.1%} off what was measured "
        f"(machine since planning: {manifest.drift - 1:+.1%})"
    )
    if manifest.probability is not None:
        console.print(
            f"planned    to meet the budget of {manifest.plan['budget']} with probability {manifest.probability:.3f}"
        )
    for one in manifest.refined:
        console.print(
            f"{'measured' if one.rank == 1 else '':<10} plan {one.rank}: predicted {one.predicted_ms:.3f} ms "
            f"{one.objective:+.4f}, measured {one.measured_ms:.3f} ms, held-out loss {one.held_out_loss:.4f}"
            f"{', chosen' if one.chosen else ''}"
        )
    if result.slowed_lr is not None:
        console.print(f"trained    at a peak learning rate of {result.slowed_lr:g}, for at the recipe's it diverged")
    console.print(
        f"proof      {proof.merged_blocks} merged blocks and {proof.folded_norms} folded norms within "
        f"{proof.worst_block:.1e} (float64);\n           end to end: merge {proof.merge_end_to_end:.1e}, "
        f"fold {proof.fold_end_to_end:.1e}, engine {proof.engine:.1e}"
    )
    if manifest.conversion is not None:
        console.print(f"converted  {_conversion(manifest.conversion, device.precision)}", markup=False)
    for name, file in result.as_json().items():
        if name in ("engine", "manifest", "report"):
            console.print(f"{name:<10} {file}", soft_wrap=True)
    if (also := result.also) is not None:
        said = f"skipped: {also.skipped}" if also.engine is None else f"{also.engine}, for {also.runtime}"
        console.print(f"{'also':<10} {said}", soft_wrap=True, markup=False)


def _conversion(figures: ConversionFigures, precision: str) -> str:
    """What the precision cost before any engine, and what stays in FP32 since it cannot be in the precision."""
    full = [layer.name for layer in figures.layers if layer.full]
    stays = f"; in FP32: {', '.join(full)}" if full else ""
    return f"to {precision}: outputs off by {figures.compressed:.1e} (original {figures.original:.1e}){stays}"
