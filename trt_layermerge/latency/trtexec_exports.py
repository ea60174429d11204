"""What NVIDIA's trtexec exports, read as rows and written: times of runs, times of layers, and what layers are.

The three are told apart by what they hold: ``--exportTimes`` is a list of runs, ``--exportProfile`` a list that begins
with a count, ``--exportLayerInfo`` an object with ``Layers``. All times are in ms, as there. Fields that trtexec added
over the years may be missing; those that it may add are not looked at.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from trt_layermerge.errors import TableError
from trt_layermerge.files import parse_json, read_bytes, write_bytes
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.runtimes.base import Nanoseconds

_MOST_MS = 1e12
"""Of one time; three decades, and far from what planning cannot count."""


@dataclass(frozen=True)
class RunTimes:
    """``--exportTimes``: a row for each run.

    Attributes:
        compute_ms: On the GPU.
        latency_ms: With the copies of inputs and outputs.
    """

    compute_ms: tuple[float, ...]
    latency_ms: tuple[float, ...]

    @property
    def timing(self) -> Timing:
        """What the runs say of the latency on the GPU; each run is a sample, as trtexec takes them."""
        times = np.array(self.compute_ms) * 1e6
        return Timing.of(times, runs=times)


@dataclass(frozen=True)
class LayerTime:
    """Of one layer in ``--exportProfile``: all runs together, on average, in the median, and its share in percent."""

    name: str
    time_ms: float
    average_ms: float
    median_ms: float | None
    percentage: float


@dataclass(frozen=True)
class LayerTimes:
    """``--exportProfile``: a row for each layer; ``count`` is of the runs."""

    count: int
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True)
class LayerInfo:
    """Of one layer in ``--exportLayerInfo``; all but its name is empty where the engine was built without details.

    Attributes:
        name: Of the layer.
        type: Such as ``CaskConvolution``.
        outputs: Formats and types of what it gives, such as ``Row major linear FP32``.
        tactic: Which kernel was chosen, in the library's words.
    """

    name: str
    type: str = ""
    outputs: tuple[str, ...] = ()
    tactic: str = ""


@dataclass(frozen=True)
class LayerInfos:
    """``--exportLayerInfo``: a row for each layer."""

    layers: tuple[LayerInfo, ...]


TrtexecExport = RunTimes | LayerTimes | LayerInfos


def is_trtexec_export(path: Path) -> bool:
    """Whether a file is rather one of these than a profile, whose first line says what it is.

    Raises:
        TableError: It cannot be read.
    """
    head = _content(path)[:4096].lstrip()
    return head.startswith(b"[") or (head.startswith(b"{") and b"trt_layermerge." not in head.partition(b"\n")[0])


def read_trtexec_export(path: Path) -> TrtexecExport:
    """Read whichever of the three a file is.

    Raises:
        TableError: It is none of them; the message says which entry is wrong.
    """
    try:
        found = parse_json(_content(path))
        if isinstance(found, dict):
            return LayerInfos(tuple(map(_layer_info, _numbered(_of(found, "Layers", list, "the file")))))
        entries = list(_numbered(found if isinstance(found, list) else []))
        if not entries:
            raise ValueError("is neither a list of runs or layers nor an object with Layers")
        if "count" in entries[0][1]:
            return LayerTimes(_count(entries[0][1]), tuple(map(_layer_time, entries[1:])))
        return RunTimes(
            *(tuple(_time(entry, name, place) for place, entry in entries) for name in ("computeMs", "latencyMs"))
        )
    except ValueError as error:
        raise TableError(
            f"{path} is no export of trtexec: it {error}",
            hint="exports are made by trtexec --exportTimes, --exportProfile and --exportLayerInfo",
        ) from error


def trtexec_csv(found: TrtexecExport) -> str:
    """The rows of an export as CSV; what a row does not have is left empty."""
    if isinstance(found, RunTimes):
        names = ["compute_ms", "latency_ms"]
        rows: Iterable[Sequence[object]] = zip(found.compute_ms, found.latency_ms, strict=True)
    else:
        names = [field.name for field in fields(LayerTime if isinstance(found, LayerTimes) else LayerInfo)]
        rows = ([getattr(layer, name) for name in names] for layer in found.layers)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["; ".join(cell) if isinstance(cell, tuple) else cell for cell in row] for row in rows)
    return text.getvalue()


def write_run_times(path: Path, times: Nanoseconds) -> None:
    """Write times of runs as ``--exportTimes`` does.

    Nothing was copied while they were taken, and the host's part was not looked at: runs stand one behind the other,
    and begin when they are queued.
    """
    ends = np.cumsum(times) / 1e6
    runs = []
    for end, length in zip(ends.tolist(), (times / 1e6).tolist(), strict=True):
        begin = {f"start{name}Ms": end - length for name in ("Enq", "H2d", "Compute")}
        begin |= {f"end{name}Ms": end - length for name in ("Enq", "H2d")}
        after = {"endComputeMs": end, "startD2hMs": end, "endD2hMs": end}
        runs.append(begin | after | {"h2dMs": 0.0, "computeMs": length, "d2hMs": 0.0, "latencyMs": length})
    _write(path, runs)


def write_layer_times(path: Path, times: Mapping[str, Sequence[float]]) -> None:
    """Write times of layers, in ms a run, as ``--exportProfile`` does."""
    count = max((len(each) for each in times.values()), default=0)
    whole = sum(map(sum, times.values())) or 1.0
    layers: list[dict[str, Any]] = [{"count": count}]
    for name, each in times.items():
        about = {"timeMs": sum(each), "averageMs": float(np.mean(each)), "medianMs": float(np.median(each))}
        layers.append({"name": name} | about | {"percentage": 100 * sum(each) / whole})
    _write(path, layers)


def write_layer_infos(path: Path, text: str) -> None:
    """Write what an engine's inspector tells, as ``--exportLayerInfo`` does: as it is."""
    write_bytes(path, text.encode())


def _write(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    lines = "\n, ".join(json.dumps(entry, separators=(", ", " : "), allow_nan=False) for entry in entries)
    write_bytes(path, f"[\n  {lines}\n]\n".encode())


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise TableError(f"{path} cannot be read: it {error}") from error


def _numbered(entries: list[Any]) -> Iterable[tuple[str, Any]]:
    """Entries with their places; objects, but for the names of layers."""
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, (dict, str)):
            raise ValueError(f"has as entry {number} what is no object")
        yield f"entry {number}", entry


def _layer_info(numbered: tuple[str, Any]) -> LayerInfo:
    place, entry = numbered
    if isinstance(entry, str):  # without details
        return LayerInfo(entry)
    given = _of(entry, "Outputs", list, place) if entry.get("Outputs") else []
    outputs = [_of(one, "Format/Datatype", str, place) for one in given if isinstance(one, dict)]
    tactic = entry.get("TacticName") or entry.get("TacticValue") or ""
    return LayerInfo(_of(entry, "Name", str, place), str(entry.get("LayerType", "")), tuple(outputs), str(tactic))


def _layer_time(numbered: tuple[str, Any]) -> LayerTime:
    place, entry = numbered
    median = _time(entry, "medianMs", place) if "medianMs" in entry else None
    whole, mean, share = (_time(entry, name, place) for name in ("timeMs", "averageMs", "percentage"))
    return LayerTime(_of(entry, "name", str, place), whole, mean, median, share)


def _count(entry: Any) -> int:
    count = entry["count"] if isinstance(entry, dict) else None
    if type(count) is not int or count < 0:
        raise ValueError(f"has {count!r} as count")
    return count


def _time(entry: Any, name: str, place: str) -> float:
    value = _of(entry, name, (int, float), place)
    if isinstance(value, bool) or not isfinite(value) or not 0 <= value <= _MOST_MS:
        raise ValueError(f"has {value!r} as {name} in {place}")
    return float(value)


def _of(entry: Any, name: str, kind: Any, place: str) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"has no {name} in {place}")
    return value
