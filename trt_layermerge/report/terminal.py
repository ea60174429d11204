"""What ``compress`` prints for people when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trt_layermerge.delivery.also import Also
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.progress import minutes
from trt_layermerge.report.exploration import Exploration
from trt_layermerge.report.result import Result
from trt_layermerge.report.summary import REFINE, FigureRow, Summary, summarise
from trt_layermerge.report.wide_console import wide_console


def print_result(result: Result, *, stderr: bool = False) -> None:
    """Print what a job made: the figures of both networks, how they came about, and where the files are."""
    console = wide_console(stderr=stderr)
    summary = summarise(result.manifest)
    table = Table("", "original", "compressed", "change", title=summary.manifest.model)
    latency, *others = summary.figures
    for row in (latency, *_also_latency(result.also), *others, *_also_launches(result.also)):
        table.add_row(row.name, *row.values, row.change)
    console.print(table)
    for line in _lines(summary):
        console.print(line)
    if result.slowed_lr is not None:
        console.print(f"trained    at a peak learning rate of {result.slowed_lr:g}, for at the recipe's it diverged")
    for what, path in result.files.items():
        console.print(f"{what:<10} {path}", soft_wrap=True)
    if (also := result.also) is not None:
        said = f"skipped: {also.skipped}" if also.engine is None else f"{also.engine}, for {also.runtime}"
        console.print(f"{'also':<10} {said}", soft_wrap=True)


def print_exploration(found: Exploration, page: Path, *, stderr: bool = False) -> None:
    """Print what budgets cost, and where the picture is."""
    console = wide_console(stderr=stderr)
    title = f"{found.model}: what budgets cost"
    table = Table(
        title=title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True
    )  # for 80 columns
    for name in (*found.columns, "from here"):
        table.add_column(name, justify="right", overflow="fold")
    left = ("", *(minutes(one.finishing_seconds) for one in found.budgets))
    for (first, *others), time in zip(found.rows, left, strict=True):
        table.add_row(first or "original", *others, time)
    console.print(table)
    for note in (*found.notes, *([found.going_on] if found.budgets else [])):
        console.print(note)
    console.print(f"{'picture':<10} {page}", soft_wrap=True)


def _also_latency(also: Also | None) -> Iterator[FigureRow]:
    """The speed-up in another runtime, where both networks were timed in it."""
    if also is not None and also.timings is not None:
        simulated = ", SIMULATED" if also.simulated else ""
        yield FigureRow(
            f"in {also.runtime}{simulated}, ms", "", also.timings.map(_milliseconds), f"{also.speedup:.2f}x"
        )


def _also_launches(also: Also | None) -> Iterator[FigureRow]:
    """Kernels of one run in another runtime, where that tells."""
    if also is not None and also.launches is not None:
        before, after = also.launches
        change = f"{after / before - 1:+.0%}" if before else ""
        yield FigureRow(f"launches in {also.runtime}", "", also.launches.map(str), change)


def _milliseconds(timing: Timing) -> str:
    median, low, high = (each / 1e6 for each in (timing.median_ns, timing.ci_low_ns, timing.ci_high_ns))
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def _lines(summary: Summary) -> Iterator[str]:
    manifest, device, prediction = summary.manifest, summary.manifest.device, summary.prediction
    if manifest.simulated:
        yield "SIMULATED  no device was timed: the latencies are no measurements"
    timed = f"batch {manifest.batch}, {device.threads} thread(s), {device.precision}"
    yield f"measured   {device.runtime} {device.runtime_version} on {device.name},"
    yield f"           {timed}; medians with 95 % intervals, interleaved"
    if device.settings:
        yield f"           {device.settings}"
    yield (
        f"predicted  {prediction.predicted_ms:.3f} ms, {prediction.error:+.1%} off what was measured "
        f"(machine since planning: {prediction.machine:+.1%})"
    )
    if prediction.missed and not prediction.late:  # which ends the command with an error
        yield f"           so far off that another plan may be better: {REFINE}"
    if prediction.probability is not None:
        yield f"planned    to meet the budget of {prediction.budget} with probability {prediction.probability:.3f}"
    if summary.widths:
        groups = ", ".join(f"{one.group} {one.channels} of {one.full}" for one in summary.widths)
        yield f"narrowed   {len(summary.widths)} channel groups: {groups}"
    for one in manifest.refined:
        yield (
            f"{'measured' if one.rank == 1 else '':<10} plan {one.rank}: predicted {one.predicted_ms:.3f} ms "
            f"{one.objective:+.4f}, measured {one.measured_ms:.3f} ms, held-out loss {one.held_out_loss:.4f}"
            f"{', chosen' if one.chosen else ''}"
        )
    proof = manifest.proof
    yield (
        f"proof      {proof.merged_blocks} merged blocks and {proof.folded_norms} folded norms within "
        f"{proof.worst_block:.1e} (float64);\n           end to end: merge {proof.merge_end_to_end:.1e}, "
        f"fold {proof.fold_end_to_end:.1e}, engine {proof.engine:.1e}"
    )
    if (conversion := manifest.conversion) is not None:
        stays = f"; in FP32: {', '.join(summary.full)}" if summary.full else ""
        yield (
            f"converted  to {device.precision}: outputs off by {conversion.compressed:.1e} "
            f"(original {conversion.original:.1e}){stays}"
        )
