"""Is what lies here what was delivered, and for what is here? Hashes, and the device of a manifest."""

from __future__ import annotations

from pathlib import Path

from trt_layermerge.delivery.manifest import DeviceFields
from trt_layermerge.errors import IncompatibleError, InputError, TableError, UsageError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import get_runtime


def check_file(path: Path, expected: str) -> None:
    """See that a file is there and has the SHA-256 that its manifest says.

    Raises:
        InputError: It is missing.
        VerificationError: It is another one.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing", hint="the manifest names it; copy the whole folder")
    if sha256(path) != expected:
        raise VerificationError(
            f"{path} is not the file that was delivered: its SHA-256 differs from the manifest's",
            hint="copy it again, or build the engine anew",
        )


def fitting_runtime(path: Path, device: DeviceFields, options: BuildOptions, hint: str) -> Runtime:
    """The runtime that a manifest names, where it would build the same here.

    Args:
        path: The manifest, for messages.
        device: What it says that its engine was built for.
        options: With which its engine was built.
        hint: How to get an engine that fits.

    Raises:
        TableError: There is no such runtime.
        RuntimeNotAvailableError: It is not here.
        IncompatibleError: The device or the version here is another one.
    """
    try:
        runtime = get_runtime(device.runtime)
    except UsageError as error:  # of the manifest's writer, not of who verifies it
        raise TableError(f"{path} is not a manifest: device.runtime: {error.message}", hint=error.hint) from error
    if differences := device.differences(runtime.describe(options)):
        raise IncompatibleError(
            f"the engine of {path} was built for something else: {'; '.join(differences)}", hint=hint
        )
    return runtime
