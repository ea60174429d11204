"""``profile estimate``: latencies of a table of convolutions on a card that is elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from trt_layermerge import files
from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_text
from trt_layermerge.errors import UsageError
from trt_layermerge.estimation.card import Card
from trt_layermerge.estimation.constants_fit import Recalibration, recalibrate
from trt_layermerge.estimation.device_files import device_names, read_card, write_card
from trt_layermerge.estimation.latency_model import Estimate
from trt_layermerge.latency.convolution_rows import APPENDED, REQUIRED, ConvolutionRows, read_convolutions
from trt_layermerge.latency.recalibration import read_measured

_MEANINGS = {
    "calibrated": "constants fitted on this card; interval from shapes that the fit had not seen",
    "transferred": "constants of another card; interval from a third one's rows",
    "uncalibrated": "outside of what any fit has seen on this card; do not plan by it alone",
}


@click.command("estimate", cls=SectionedCommand)
@click.option(
    "--device",
    required=True,
    metavar="NAME",
    help=f"The card: {', '.join(device_names())}; or a FILE.toml that --save wrote.",
)
@click.option("--csv", "table", type=PATH, metavar="FILE", help=f"One convolution a row: {', '.join(REQUIRED)}.")
@click.option("--output", type=PATH, help="Write the table with its estimates here.  [default: print it]")
@click.option(
    "--recalibrate",
    "source",
    type=PATH,
    metavar="PROFILE",
    help="Pull the constants to rows measured on the card, 20 or more, if that wins in cross-validation: a profile, or "
    "a CSV table with latency_ms.",
)
@click.option("--save", type=PATH, metavar="FILE.toml", help="Write the recalibrated card, for --device FILE.toml.")
def command(device: str, table: Path | None, output: Path | None, source: Path | None, save: Path | None) -> None:
    """Estimate latencies on a card that need not be here: a SIMULATION, no device is timed.

    The table may have the columns precision (fp32), runtime (tensorrt-10; up to 8.5 there was cuDNN, with FFT for large
    kernels) and timing (engine, amid-network, torch-call), and any others. A column latency_ms holds measured
    latencies; it becomes measured_ms, and the errors are told.
    """
    if table is None and source is None:
        raise UsageError("there is nothing to do", hint="pass --csv FILE, --recalibrate PROFILE, or both")
    if save is not None and (source is None or save.suffix != ".toml"):
        raise UsageError("--save writes what --recalibrate makes, into a file whose name ends in .toml")
    card = read_card(device)
    _say(f"{card.sheet.title}: {card.provenance}")
    if source is not None:
        found = recalibrate(card, read_measured(source), str(source))
        card = found.card
        _tell_recalibration(found, save)
    if table is not None:
        _estimate(read_convolutions(table), card, output)


def _tell_recalibration(found: Recalibration, save: Path | None) -> None:
    errors = f"median error {found.before:.1%} as it was, {found.after:.1%} on shapes that the refit had not seen"
    _say(f"{found.rows} rows: {errors}; the constants are {'refitted' if found.taken else 'left as they were'}")
    if save is not None and found.taken:
        write_card(save, found.card)
        _say(f"{save}: pass it as --device, or as --runtime estimate:{save}")


def _estimate(rows: ConvolutionRows, card: Card, output: Path | None) -> None:
    estimates = rows.estimates(card)
    text = rows.csv(estimates)
    if output is None:
        print_text(text)
    else:
        files.write_bytes(output, text.encode())
        click.echo(f"{output}: {len(estimates)} rows, SIMULATED: {', '.join(APPENDED)}")
    for word, count in Counter(one.calibrated for one in estimates).items():
        _say(f"{count} rows are {word}: {_MEANINGS[word]}")
    _tell_errors(rows, estimates)


def _tell_errors(rows: ConvolutionRows, estimates: Sequence[Estimate]) -> None:
    """How far estimates are from the table's own measured latencies, where it has some."""
    if rows.measured_ms is None:
        return
    latency, low, high = (
        1e-6 * np.array([getattr(one, name) for one in estimates]) for name in ("latency_ns", "low_ns", "high_ns")
    )
    error = np.abs(latency / rows.measured_ms - 1)
    within = np.mean((low <= rows.measured_ms) & (rows.measured_ms <= high))
    _say(
        f"against latency_ms: median error {np.median(error):.1%}, 90 % within {np.quantile(error, 0.9):.1%}; "
        f"{within:.0%} of the rows lie in their 90 % interval"
    )


def _say(text: str) -> None:
    click.echo(text, err=True)
