"""``verify``: is a delivered engine still what was delivered, and does it compute what it should?"""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.show import print_json
from trt_layermerge.delivery.verify import verify_delivery


@click.command("verify")
@click.option("--manifest", type=PATH, required=True, help="manifest.json beside the engine.")
@json_option
def command(manifest: Path, as_json: bool) -> None:
    """Check the files of a delivery, that its engine fits this device, and its outputs on recorded real inputs."""
    found = verify_delivery(manifest)
    device = found.manifest.device
    if as_json:
        print_json(
            {
                "manifest": str(manifest),
                "files": found.files,
                "engine_error": found.engine,
                "samples": found.samples,
                "runtime": device.runtime,
                "runtime_version": device.runtime_version,
                "device": device.name,
            }
        )
    else:
        click.echo(
            f"{manifest}: {found.files} files as delivered; the engine agrees with the PyTorch network on "
            f"{found.samples} real inputs within {found.engine:.1e} ({device.runtime} {device.runtime_version})"
        )
