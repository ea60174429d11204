"""``profile merge``: several profiles of one device as one."""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.cli.options import PATH
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.errors import UsageError
from trt_layermerge.latency.profile import Profile
from trt_layermerge.latency.profile_tables import merged_rows


@click.command("merge", cls=SectionedCommand)
@click.argument("profiles", type=PATH, nargs=-1, required=True, metavar="PROFILE...")
@click.option("--output", type=PATH, required=True, help="File to write; one that is there has to be one of them.")
def command(profiles: tuple[Path, ...], output: Path) -> None:
    """Make one profile of several files PROFILE... of one device: those of shards of a job, or of several machines.

    Of an operation that several of them hold, the surest row is taken; of equally sure ones that of the last file.
    """
    if output.exists() and not any(output.samefile(path) for path in profiles if path.exists()):
        raise UsageError(f"{output} is there, and not among what is merged", hint="name it as a PROFILE, too")
    read = [Profile.read(path) for path in profiles]
    merged = Profile.write(output, read[0].key, merged_rows(read))
    click.echo(f"{output}: {len(merged)} operations of {sum(map(len, read))} rows in {len(read)} files")
