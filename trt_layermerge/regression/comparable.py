"""The two files that ``compare`` is given: told apart by what they hold, and compared as what they are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TypeAlias

from trt_layermerge.delivery.manifest import DELIVERY_FORMAT, Manifest, read_manifest
from trt_layermerge.errors import InputError, TableError, UsageError
from trt_layermerge.latency.profile import Profile
from trt_layermerge.regression.deliveries import DeliveryComparison, compare_deliveries
from trt_layermerge.regression.profiles import ProfileComparison, compare_profiles

_PROFILE = b'"trt_layermerge.profile"'

Comparison: TypeAlias = ProfileComparison | DeliveryComparison


def compare_files(
    baseline: Path, new: Path, tolerance: float, accuracy_tolerance: float | None, across: Collection[str]
) -> Comparison:
    """Compare two profiles, or two manifests of deliveries.

    Args:
        baseline: What it was.
        new: What it is.
        tolerance: Largest change of a latency or loss of speed-up that does not matter, above 0.
        accuracy_tolerance: Largest loss of accuracy that does not matter; manifests only.
        across: Fields of ``profiles.ACROSS`` that may differ.

    Raises:
        UsageError: Profiles have no accuracy.
        InputError: They are not two of a kind.
        IncompatibleError, TableError, VerificationError: See ``read_comparable`` and the comparisons.
    """
    match read_comparable(baseline), read_comparable(new):
        case Profile() as then, Profile() as now:
            if accuracy_tolerance is not None:
                raise UsageError("--accuracy-tolerance is for manifests, and profiles hold no accuracy")
            return compare_profiles(then, now, tolerance, across)
        case Manifest() as then, Manifest() as now:
            return compare_deliveries(then, now, tolerance, accuracy_tolerance, across)
    raise InputError(
        f"one of {baseline} and {new} is a profile, the other the manifest of a delivery", hint="compare two of a kind"
    )


def read_comparable(path: Path) -> Profile | Manifest:
    """Read a profile or a manifest of a delivery, whichever it is.

    Raises:
        IncompatibleError: It is a profile of another version of the format.
        TableError: It cannot be read, is neither, or is damaged.
        VerificationError: It is a manifest that does not fit its checksum.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}") from error
    if _PROFILE in data.partition(b"\n")[0]:
        return Profile.read(path)
    if DELIVERY_FORMAT.encode() in data:
        return read_manifest(path)
    raise TableError(
        f"{path} is neither a profile nor the manifest of a delivery",
        hint="compare takes files such as profiles/DEVICE/RUNTIME-VERSION-fp32.jsonl or engines/NAME/manifest.json",
    )
