"""``verify``: is a delivered engine still what was delivered, and does it compute what it should?"""

from __future__ import annotations

from pathlib import Path

import click

from trt_layermerge.cli.options import PATH, json_option
from trt_layermerge.cli.sections import SectionedCommand
from trt_layermerge.cli.show import print_json
from trt_layermerge.cli.signing import signed_by_option
from trt_layermerge.delivery.delivery_signature import PublicKey
from trt_layermerge.delivery.engine_manifest import is_engine_manifest
from trt_layermerge.delivery.engines import verify_built


@click.command("verify", cls=SectionedCommand)
@click.option(
    "--manifest", type=PATH, required=True, help="The manifest.json beside the engine, or ENGINE.manifest.json."
)
@click.option(
    "--strict", is_flag=True, help="For CI: also fail on files that no manifest lists, and on what was not measured."
)
@signed_by_option
@json_option
def command(manifest: Path, strict: bool, signed_by: PublicKey | None, as_json: bool) -> None:
    """Check the files of a delivery, that its engine fits this device, and its outputs on recorded real inputs.

    What build made has no recorded inputs: its files are checked, and what the engine itself says it is for.
    """
    if is_engine_manifest(manifest):
        _verify_built(manifest, strict, signed_by, as_json)
        return
    from trt_layermerge.delivery.verification import verify_delivery  # it loads torch

    found = verify_delivery(manifest, strict=strict, signed_by=signed_by)
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
            | ({"simulated": True} if found.manifest.simulated else {})
            | _signer(signed_by)
        )
    else:
        simulated = ", SIMULATED" if found.manifest.simulated else ""
        click.echo(
            f"{manifest}: {_signed(signed_by)}{found.files} files as delivered; the engine agrees with the PyTorch "
            f"network on {found.samples} real inputs within {found.engine:.1e} "
            f"({device.runtime} {device.runtime_version}{simulated})"
        )


def _verify_built(path: Path, strict: bool, key: PublicKey | None, as_json: bool) -> None:
    found = verify_built(path, strict=strict, signed_by=key)
    device, manifest = found.device, found.manifest
    if as_json:
        print_json(
            {
                "manifest": str(path),
                "files": found.files,
                "runtime": device.runtime,
                "runtime_version": device.runtime_version,
                "device": device.name,
                "precision": manifest.device.precision,
                "sha256": manifest.files,
            }
            | _signer(key)
        )
        return
    click.echo(
        f"{path}: {_signed(key)}{found.files} files as written; the engine is for {device.name}, built by "
        f"{device.runtime} {device.runtime_version} from {manifest.onnx} ({manifest.device.precision})"
    )
    for name, digest in manifest.files.items():
        click.echo(f"  {digest}  {name}")


def _signer(key: PublicKey | None) -> dict[str, str]:
    return {} if key is None else {"signed_by": str(key.path)}


def _signed(key: PublicKey | None) -> str:
    return "" if key is None else f"signed by {key.path}; "
