"""``profile export``: a profile in another format."""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge import files
from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import Command
from trt_layermerge.cli.show import print_text
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.profile_tables import profile_csv


@click.command("export", cls=Command)
@click.argument("profile", type=PATH)
@click.option("--csv", "target", type=PATH, required=True, metavar="FILE", help="Write a CSV table; - prints it.")
def command(profile: Path, target: Path) -> None:
    """Write the rows of the file PROFILE for other programs."""
    read = Profile.read(profile)
    text = profile_csv(read)
    if target == Path("-"):
        print_text(text)
    else:
        files.write_bytes(target, text.encode())
        click.echo(f"{target}: {len(read)} rows")
