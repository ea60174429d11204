"""For CI: a delivery that holds what its manifests list and nothing else, all of it hashed and measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trt_layermerge.delivery.delivery_signature import PublicKey, signature_path
from trt_layermerge.delivery.engine_manifest import EngineManifest, manifest_path, read_engine_manifest
from trt_layermerge.delivery.integrity import check_file
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.errors import VerificationError

_SHOWN = 5


def require_strict(path: Path, manifest: Manifest | EngineManifest, signed_by: PublicKey | None = None) -> None:
    """See that nothing about a delivery has to be taken on trust that a manifest could say.

    1. The manifest has a checksum, which those of version 1 have not.
    2. Every file in its folder is listed, with its hash, by it or by the manifest of another engine there, which is
       signed by the same key where one is given; or it is the signature of one of these.
    3. Its figures were measured.

    Raises:
        VerificationError: It is not so; the message says all that is not.
        InputError: A file of another manifest there is missing.
    """
    faults = list(_faults(path, manifest, signed_by))
    if faults:
        raise VerificationError(
            f"{path} does not hold to --strict: {'; '.join(faults)}",
            hint="deliver what the manifest lists, alone in a folder, with a manifest that this release wrote",
        )


def _faults(path: Path, manifest: Manifest | EngineManifest, signed_by: PublicKey | None) -> Iterator[str]:
    if manifest.checksum is None:
        yield "the manifest has no checksum"
    if manifest.device.simulated or (isinstance(manifest, Manifest) and manifest.simulated):
        yield "its latencies are simulated"
    listed = {path.name, signature_path(path).name, *manifest.files}
    for other in sorted(path.parent.glob(manifest_path(Path("*")).name)):
        if other.name != path.name:
            beside = read_engine_manifest(other, signed_by)
            for name, expected in beside.files.items():
                check_file(other.parent / name, expected)
            listed |= {other.name, signature_path(other).name, *beside.files}
    unlisted = sorted({one.name for one in path.parent.iterdir()} - listed)
    if unlisted:
        more = f" and {len(unlisted) - _SHOWN} more" if len(unlisted) > _SHOWN else ""
        yield f"no manifest lists {', '.join(unlisted[:_SHOWN])}{more}"
