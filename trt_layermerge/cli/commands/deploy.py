"""``deploy``: a delivery written as what loads it."""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.sections import OneOf, SectionedCommand
from trt_layermerge.cli.show import print_json
from trt_layermerge.cli.signing import signed_by_option
from trt_layermerge.delivery.delivery_signature import PublicKey
from trt_layermerge.deployment.delivered import read_delivered
from trt_layermerge.deployment.registry import DEPLOYMENTS, deploy


@click.command("deploy", cls=SectionedCommand)
@click.argument("manifest", type=PATH)
@click.option(
    "--to",
    type=OneOf(tuple(DEPLOYMENTS)),
    required=True,
    help="Write it for this: " + "; ".join(f"{kind.name}: {kind.purpose}" for kind in DEPLOYMENTS.values()) + ".",
)
@click.option("--name", help="Name that the model gets.  [default: that of MANIFEST's folder or engine]")
@click.option("--model", type=PATH, help="The ONNX file that the engine was built from.  [default: beside MANIFEST]")
@click.option("--output", type=PATH, help="Folder to write to.  [default: deployed/KIND]")
@signed_by_option
@json_option
def command(
    manifest: Path,
    to: str,
    name: str | None,
    model: Path | None,
    output: Path | None,
    signed_by: PublicKey | None,
    as_json: bool,
) -> None:
    """Write a delivery as what loads it: MANIFEST is manifest.json of compress, or ENGINE.manifest.json of build."""
    delivered = read_delivered(manifest, model, signed_by)
    own = manifest.resolve().parent.name if delivered.figures else delivered.engine.name.partition(".")[0]
    folder = output or Path("deployed") / to
    files = deploy(delivered, to, name or own, folder)
    if as_json:
        print_json({"to": to, "folder": str(folder), "files": [str(file) for file in files]})
        return
    for file in files:
        click.echo(file)
