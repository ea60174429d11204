"""Is what lies here what was delivered, and for what is here? Hashes, and the device of a manifest."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from trt_layermerge.errors import IncompatibleError, InputError, TableError, UsageError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.journal import differences
from trt_layermerge.runtimes.base import BuildOptions, Device, Runtime
from trt_layermerge.runtimes.registry import get_runtime

_DECISIVE = ("name", "runtime", "runtime_version", "precision", "simulated", "compute_capability")


def check_file(path: Path, expected: str) -> None:
    """See that a file is there and has the SHA-256 that its manifest says.

    Raises:
        InputError: It is missing.
        VerificationError: It is another one, or a link, which may lead anywhere at any time.
    """
    if path.is_symlink():
        raise VerificationError(
            f"{path} is a symbolic link, and a delivery's files lie beside its manifest",
            hint="copy the file itself: cp --dereference",
        )
    if not path.is_file():
        raise InputError(f"{path} is missing", hint="the manifest names it; copy the whole folder")
    if sha256(path) != expected:
        raise VerificationError(
            f"{path} is not the file that was delivered: its SHA-256 differs from the manifest's",
            hint="copy it again, or build the engine again",
        )


def fitting_runtime(path: Path, device: Device, options: BuildOptions, hint: str) -> Runtime:
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
    if differing := device_differences(device, runtime.describe(options)):
        raise IncompatibleError(f"the engine of {path} was built for something else: {'; '.join(differing)}", hint=hint)
    return runtime


def device_differences(built: Device, here: Device) -> list[str]:
    """What differs on this machine, of what decides whether an engine may load, in words.

    A driver may be newer than the one that the engine was built with, not older. What an old manifest does not say
    differs from nothing.
    """
    known = {name: value for name in _DECISIVE if (value := getattr(built, name)) is not None}
    found = differences(known, asdict(here))
    if built.driver is not None and (here.driver is None or _numbers(here.driver) < _numbers(built.driver)):
        found.append(f"driver: {built.driver} or newer, here {here.driver}")
    return found


def _numbers(version: str) -> list[int]:
    """A driver's version as numbers to compare."""
    return [int(number) for number in re.findall(r"\d+", version)]
