"""``profile export``: a profile in another format."""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

import click

from trt_layermerge import files
from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_text
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.profile_tables import profile_csv
from trt_layermerge.latency.trtexec_exports import is_trtexec_export, read_trtexec_export, trtexec_csv


@click.command("export", cls=SectionedCommand)
@click.argument("profile", type=PATH)
@click.option("--csv", "target", type=PATH, required=True, metavar="FILE", help="Write a CSV table; - prints it.")
def command(profile: Path, target: Path) -> None:
    """Write the rows of the file PROFILE, or of an export of trtexec, for other programs."""
    text = (
        trtexec_csv(read_trtexec_export(profile)) if is_trtexec_export(profile) else profile_csv(Profile.read(profile))
    )
    if target == Path("-"):
        print_text(text)
    else:
        files.write_bytes(target, text.encode())
        click.echo(f"{target}: {sum(1 for _ in csv.reader(StringIO(text))) - 1} rows")
