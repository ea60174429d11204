"""A CSV table of convolutions whose latencies are to be estimated, or were measured, and the table with estimates.

One row is one convolution with a square kernel. Columns that mean nothing here are passed through; a column
``latency_ms`` holds measured latencies, and is called ``measured_ms`` beside the estimates.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trt_layermerge.errors import TableError
from trt_layermerge.estimation.card import TIMING_MODES, Card, TimingMode
from trt_layermerge.estimation.constants_fit import Measured
from trt_layermerge.estimation.latency_model import Estimate, LatencyModel
from trt_layermerge.estimation.tactic_sources import DEFAULT_LIBRARY, algorithms_of
from trt_layermerge.estimation.workload import Workload
from trt_layermerge.planning.rows import Row, read_rows

REQUIRED = ("in_channels", "out_channels", "kernel", "stride", "padding", "groups", "height", "width", "batch")
LATENCY = "latency_ms"
APPENDED = (LATENCY, "low_ms", "high_ms", "algorithm", "calibrated")

Way = tuple[str, TimingMode]
"""Library with its version, and how it is timed."""


@dataclass(frozen=True)
class ConvolutionRows:
    """A table.

    Attributes:
        rows: As they are in the file.
        workloads: What each is of.
        ways: Library and timing mode of each.
        measured_ms: Measured latencies, ``[rows]``; ``None`` where the table has none.
    """

    rows: tuple[Row, ...]
    workloads: tuple[Workload, ...]
    ways: tuple[Way, ...]
    measured_ms: NDArray[np.float64] | None

    def estimates(self, card: Card) -> list[Estimate]:
        """Estimates for a card, by row."""
        found: dict[int, Estimate] = {}
        for way in dict.fromkeys(self.ways):
            chosen = [number for number, one in enumerate(self.ways) if one == way]
            made = LatencyModel(card, *way).convolutions([self.workloads[number] for number in chosen])
            found |= dict(zip(chosen, made, strict=True))
        return [found[number] for number in range(len(self.rows))]

    def csv(self, estimates: Sequence[Estimate]) -> str:
        """The table with its estimates behind."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        names = ["measured_ms" if name == LATENCY else name for name in self.rows[0].cells]
        writer.writerow([*names, *APPENDED])
        for row, one in zip(self.rows, estimates, strict=True):
            times = [f"{1e-6 * value:.6f}" for value in (one.latency_ns, one.low_ns, one.high_ns)]
            writer.writerow([*row.cells.values(), *times, one.algorithm, one.calibrated])
        return text.getvalue()

    def measurements(self) -> Measured:
        """The measured latencies of FP32.

        Raises:
            TableError: There are none, or they were measured in several ways.
        """
        where, ways = self.rows[0].path, sorted(set(self.ways))
        if self.measured_ms is None:
            raise TableError(f"{where}: no column {LATENCY!r}", hint="recalibration needs measured latencies")
        if len(ways) > 1:
            raise TableError(f"{where}: rows of {len(ways)} runtimes or timing modes", hint="keep those of one")
        single = np.array([one.precision == "fp32" for one in self.workloads])
        return Measured(self.workloads, self.measured_ms, *ways[0]).rows(single)


def read_convolutions(path: Path) -> ConvolutionRows:
    """Read a table.

    Raises:
        TableError: It is no CSV, lacks a column, or a cell is not what its column says; the message names row and
            column.
    """
    columns, rows = read_rows(path, REQUIRED, None)
    for name in APPENDED[1:]:
        if name in columns:
            raise TableError(f"{path}: the header: column {name!r} is what estimates are written to", hint="rename it")
    measured = np.array([_latency(row) for row in rows]) if LATENCY in columns else None
    return ConvolutionRows(tuple(rows), tuple(map(_workload, rows)), tuple(map(_way, rows)), measured)


def _workload(row: Row) -> Workload:
    kernel, stride, padding = (row.whole(name) for name in ("kernel", "stride", "padding"))
    try:
        return Workload(
            row.whole("batch"),
            row.whole("in_channels"),
            row.whole("out_channels"),
            row.whole("height"),
            row.whole("width"),
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=(padding, padding, padding, padding),
            groups=row.whole("groups"),
            precision=row.cells.get("precision") or "fp32",
        )
    except ValueError as error:
        raise row.error(str(error)) from error


def _way(row: Row) -> Way:
    library, timing = row.cells.get("runtime") or DEFAULT_LIBRARY, row.cells.get("timing") or "engine"
    try:
        algorithms_of(library)
    except ValueError as error:
        raise row.error(str(error)) from error
    for mode in TIMING_MODES:
        if mode == timing:
            return library, mode
    raise row.error(f"timing is {timing!r}, none of {', '.join(TIMING_MODES)}")


def _latency(row: Row) -> float:
    value = row.real(LATENCY)
    if value <= 0:
        raise row.error(f"{LATENCY} is {row.cells[LATENCY]!r}, not above 0")
    return value
