"""Profiles as wholes: several of one device made one, and one as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from io import StringIO

from trt_layermerge.blocks.gap_signature import AnySignature
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.errors import IncompatibleError
from trt_layermerge.latency.profile import Profile, ProfileRow, Status
from trt_layermerge.latency.statistics import Timing

_SURENESS: dict[Status, int] = {"failed": 0, "degraded": 1, "ok": 2}
_TIMES = [field.name for field in fields(Timing) if field.name.endswith("_ns")]
_GEOMETRY = ("in_channels", "out_channels", "kernel", "stride", "padding", "dilation", "groups")
_COLUMNS = (
    "signature",
    *("status", "reason"),
    *("precision", "batch", "channels", "height", "width", *_GEOMETRY),
    *(name.replace("_ns", "_ms") for name in _TIMES),
    "host_ms",
    *("cv", "samples", "builds", "build_spread", "drift", "simulated", "clock_mhz", "temperature_c"),
)


def merged_rows(profiles: Sequence[Profile]) -> list[ProfileRow]:
    """The rows of all profiles, each signature once: the surest of its rows, of equally sure ones the last.

    Raises:
        IncompatibleError: Their keys differ, and one table would hold latencies of different things.
    """
    found: dict[str, ProfileRow] = {}
    for profile in profiles:
        if differing := profiles[0].key.differences(profile.key):
            raise IncompatibleError(
                f"{profiles[0].path} and {profile.path} cannot be merged: {'; '.join(differing)}",
                hint="merge profiles of one device, driver, runtime and timing mode",
            )
        for row in profile:
            known = found.get(row.signature.key)
            if known is None or _SURENESS[row.status] >= _SURENESS[known.status]:
                found[row.signature.key] = row
    return list(found.values())


def profile_csv(profile: Profile) -> str:
    """All rows as CSV, latencies in ms; what a row does not have is left empty."""
    text = StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if cell is None else cell for name, cell in _cells(row).items()} for row in profile)
    return text.getvalue()


def _cells(row: ProfileRow) -> dict[str, object]:
    timing = {} if row.timing is None else asdict(row.timing)
    told = {"host_ns": row.host_ns} | {name: timing.pop(name, None) for name in _TIMES}
    times = {name.replace("_ns", "_ms"): f"{ns / 1e6:.6f}" for name, ns in told.items() if ns is not None}
    about = {name: getattr(row, name) for name in ("status", "reason", "drift", "clock_mhz", "temperature_c")}
    of = {"signature": row.signature.key, "simulated": str(row.simulated).lower()} | _shape(row.signature)
    return of | about | times | timing


def _shape(signature: AnySignature) -> dict[str, object]:
    """What is convolved, its sizes along both axes as ``3x3``; of other operations, what they take."""
    channels, height, width = signature.input_shape
    cells: dict[str, object] = {"precision": signature.precision, "batch": signature.batch}
    cells |= {"channels": channels, "height": height, "width": width}
    if isinstance(signature, Signature) and (convolution := signature.convolution) is not None:
        values = {name: getattr(convolution, name) for name in _GEOMETRY}
        cells |= {name: "x".join(map(str, v)) if isinstance(v, tuple) else v for name, v in values.items()}
    return cells
