"""An engine by its manifest: loaded where its files are those that were written and it is for what is here."""

from __future__ import annotations

from pathlib import Path

from trt_layermerge.delivery.delivery_signature import PublicKey
from trt_layermerge.delivery.engine_manifest import EngineManifest
from trt_layermerge.delivery.integrity import check_file, fitting_runtime
from trt_layermerge.delivery.manifest import Manifest
from trt_layermerge.delivery.strictness import require_strict
from trt_layermerge.runtimes.base import BuildOptions, Engine


def verified_engine(
    path: Path, manifest: Manifest | EngineManifest, hint: str, *, strict: bool, signed_by: PublicKey | None
) -> Engine:
    """Check an engine's files and device, and load it.

    Args:
        path: The manifest's file.
        manifest: What it holds.
        hint: How to get an engine that fits here.
        strict: Whether ``require_strict`` must hold as well.
        signed_by: Who must have signed other manifests there; ``None`` for anyone, or no one.

    Raises:
        InputError: A file is missing.
        VerificationError: A file is not the one that was written.
        IncompatibleError: The engine was built for another device, or by another version than is here.
        RuntimeNotAvailableError: Its runtime is not here.
    """
    for name, expected in manifest.files.items():
        check_file(path.parent / name, expected)
    if strict:
        require_strict(path, manifest, signed_by)
    device = manifest.device
    options = BuildOptions(threads=device.threads, precision=device.precision, batches=manifest.batches)
    return fitting_runtime(path, device, options, hint).load(path.parent / manifest.engine, options)
