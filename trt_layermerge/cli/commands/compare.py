"""``compare``: is what was measured today slower than its baseline?"""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.ci.compared import report_of_comparison
from trt_layermerge.cli.ci_files import CiFiles, ci_options
from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.parsing import read_share
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_json
from trt_layermerge.regression.comparable import compare_files
from trt_layermerge.regression.printing import comparison_fields, comparison_lines
from trt_layermerge.regression.profiles import ACROSS


@click.command("compare", cls=SectionedCommand)
@click.argument("baseline", type=PATH)
@click.argument("new", type=PATH)
@click.option(
    "--tolerance",
    callback=read_share,
    default="5%",
    show_default=True,
    help="Largest change of a latency or a speed-up that does not matter.",
)
@click.option(
    "--accuracy-tolerance",
    type=click.FloatRange(0),
    metavar="POINTS",
    help="Manifests: largest loss of accuracy that does not matter.  [default: it is shown, not evaluated]",
)
@click.option("--across", type=click.Choice(ACROSS), multiple=True, help="Compare although this differs.")
@click.option("--html", type=PATH, metavar="FILE.html", help="Write a page to look at.")
@ci_options
@json_option
def command(
    baseline: Path,
    new: Path,
    tolerance: float,
    accuracy_tolerance: float | None,
    across: tuple[str, ...],
    html: Path | None,
    as_json: bool,
    **ci_files: Path | None,
) -> None:
    """Compare NEW with BASELINE: two profiles, or two manifests of deliveries (engines/NAME/manifest.json).

    Exit code 7 says that something became slower by more than the tolerance, 8 that it cannot be told, 9 that the two
    are of different devices or settings, 0 that nothing was found to be slower.
    """
    for_ci = CiFiles(**ci_files)
    for_ci.require_writable()
    found = compare_files(baseline, new, tolerance, accuracy_tolerance, across)
    if html is not None:
        from trt_layermerge.ci.comparison_page import write_comparison  # it loads torch and matplotlib

        write_comparison(html, found)
    for_ci.write(lambda: report_of_comparison(found))
    if as_json:
        print_json(comparison_fields(found))
    else:
        click.echo("\n".join(comparison_lines(found)))
    if found.objection is not None:
        raise found.objection
