"""``profile validate``: are sums over the profile what whole networks take?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click

import trt_layermerge as layermerge
from trt_layermerge.cli.config_file import config_option
from trt_layermerge.cli.options import (
    data_options,
    device_options,
    json_option,
    network_options,
    settings_of,
    torch_options,
)
from trt_layermerge.cli.parsing import read_share
from trt_layermerge.cli.sections import SectionedCommand, combined, option, section
from trt_layermerge.cli.show import print_json, screen
from trt_layermerge.errors import InconclusiveError, VerificationError
from trt_layermerge.pipeline.fidelity_correction import (
    Correction,
    FidelityErrors,
    PlanTiming,
    find_correction,
    rank_correlation,
)


@click.command("validate", cls=SectionedCommand)
@combined(network_options, device_options, data_options, torch_options, config_option, json_option)
@section(
    "Validation",
    option(
        "--plans",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        metavar="N",
        help="Execute and time this many plans.",
    ),
    option(
        "--max-error",
        callback=read_share,
        metavar="SHARE",
        usual="it is shown",
        help="Exit code 5 where the median error is larger, such as 3%, and 8 where the machine is too noisy to say.",
    ),
)
def command(as_json: bool, plans: int, max_error: float | None, **given: Any) -> None:
    """Predict plans of MODEL from the profile, time their engines, and tell how far apart they are.

    The plans are spread over the frontier. No task is needed: no latency depends on weights. Where errors are
    systematic, the correction is told, and what it leaves of the error of plans that it was not fitted to. It is kept
    in --output, and all plans made there from then on are corrected by it.
    """
    session = layermerge.load(**settings_of(given))
    with screen() as shown:
        timed = layermerge.validate(session, plans=plans, progress=shown)
    errors, correction = FidelityErrors.of([one.error for one in timed]), find_correction(timed)
    device = session.profile.key.device
    if as_json:
        print_json(
            {
                "model": session.job.model,
                "profile": str(session.profile.path),
                "simulated": device.simulated,
                "errors": asdict(errors),
                "rank_correlation": rank_correlation(timed),
                "correction": asdict(correction),
                "plans": [asdict(one) | {"error": one.error} for one in timed],
            }
        )
    else:
        _tell(timed, errors, correction, session.job.correction_file, device.simulated)
    if max_error is not None:
        _require(timed, correction.unseen, max_error)


def _require(timed: Sequence[PlanTiming], errors: FidelityErrors, max_error: float) -> None:
    """See that errors are small enough, or the machine too noisy to say.

    Raises:
        VerificationError: They are larger.
        InconclusiveError: What was measured is less sure than that.
    """
    doubt = median(one.doubt for one in timed)
    if doubt > max_error:
        raise InconclusiveError(
            f"latencies were measured to within {doubt:.1%}, and errors of {max_error:.1%} are asked for",
            hint="measure once more into a fresh folder (--output, --profiles) with nothing else running",
        )
    if errors.median > max_error:
        raise VerificationError(
            f"the median error of {len(timed)} predicted latencies is {errors.median:.1%}, more than {max_error:.1%}",
            hint="measure once more with nothing else running; profile --again measures degraded rows anew",
        )


def _tell(
    timed: Sequence[PlanTiming], errors: FidelityErrors, correction: Correction, kept: Path, simulated: bool
) -> None:
    if simulated:
        click.echo("SIMULATED: no device was timed")
    click.echo(f"{'predicted':>10} {'measured':>10} {'error':>8} {'corrected':>10}   shares of the original's latency")
    for one in timed:
        corrected = f"{correction.corrected(one):>10.3f}" if correction.kind != "none" else f"{'':>10}"
        click.echo(f"{one.predicted:>10.3f} {one.measured:>10.3f} {one.error:>+8.1%} {corrected}")
    rank = rank_correlation(timed)
    told = "not defined" if rank is None else f"{rank:.3f}"
    click.echo(
        f"error    median {errors.median:.1%}, RMSPE {errors.rmspe:.1%}, worst {errors.worst:.1%}, "
        f"mean {errors.bias:+.1%}; rank correlation {told}"
    )
    click.echo(f"noise    latencies were measured to within {median(one.doubt for one in timed):.1%}")
    if correction.kind == "none":
        click.echo("nothing systematic that a correction would help with")
    else:
        click.echo(
            f"corrected by {correction.kind}: blocks save {correction.saved:.1%} less than predicted; operations "
            f"that are gone cost {correction.removed:+.1%} of the original if all are, weights "
            f"{correction.weights:+.1%}; median error of unseen plans {correction.unseen.median:.1%}, "
            f"RMSPE {correction.unseen.rmspe:.1%}"
        )
        click.echo(f"{kept}: solve and compress correct their plans by it")
