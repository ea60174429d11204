"""Plain CSV tables of latencies and importances, measured by whatever means: what they must hold, and reading them.

``start,end,kernel,depthwise,latency_ms`` and ``start,end,kernel,depthwise,importance`` for one chain, rows in whatever
order. What is doubtful is an error that names the file and the row. ``tabulated`` makes a problem of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from trt_layermerge.errors import TableError
from trt_layermerge.planning.problem import LONGEST_NS
from trt_layermerge.planning.rows import Row, read_rows

FLAGS = ("start_activation", "end_activation")
KERNEL_COLUMNS = ("kernel", "depthwise")
MOST_LAYERS = 2000  # more of them in one chain are a slip of the pen, and would take all memory there is

KernelKind = tuple[int | None, bool | None]


@dataclass(frozen=True)
class TableRow:
    """What a row of either table is of.

    Attributes:
        row: Where it is said.
        start: The block is (start, end].
        end: Last layer of the block.
        kernel: Kernel of its one convolution, 0 for none; None if the table has no such column.
        depthwise: Whether that is depthwise; None if the table has no such column.
    """

    row: Row
    start: int
    end: int
    kernel: int | None
    depthwise: bool | None

    @property
    def joined_by(self) -> tuple[int, int, int | None, bool | None]:
        """What a latency and its importance have in common."""
        return self.start, self.end, self.kernel, self.depthwise


@dataclass(frozen=True)
class LatencyRow(TableRow):
    """What a block takes.

    Attributes:
        latency_ns: Latency in ns, rounded up.
        low_ns: Lower end of its 95 % confidence interval, rounded down; None if the table has no such column.
        high_ns: Upper end, rounded up.
    """

    latency_ns: int
    low_ns: int | None = None
    high_ns: int | None = None

    @property
    def key(self) -> str:
        """Names the choice in plans."""
        kernel = "" if self.kernel is None else f" k{self.kernel}"
        return f"{self.start}-{self.end}{kernel}" + {None: "", False: " dense", True: " dw"}[self.depthwise]


@dataclass(frozen=True)
class ImportanceLine(TableRow):
    """What a choice for a block is worth.

    Attributes:
        start_activation: Whether the activation before the block was there, for a method of two stages.
        end_activation: Whether the activation after it was there.
        importance: Its importance, larger is better.
    """

    start_activation: bool
    end_activation: bool
    importance: float


@dataclass(frozen=True)
class LatencyTable:
    """A table of latencies that tiles its chain.

    Attributes:
        path: The file.
        rows: Its rows.
        kinds: Which of the columns kernel and depthwise it has.
    """

    path: Path
    rows: tuple[LatencyRow, ...]
    kinds: frozenset[str]

    @property
    def length(self) -> int:
        """Layers of the chain."""
        return max(row.end for row in self.rows)

    @property
    def unchanged(self) -> dict[int, LatencyRow]:
        """For each layer that has a row of its own, the row of the layer as it is, by the layer's number.

        If there are several, it is the one of the largest kernel, and of these the slowest.
        """
        single = sorted((row for row in self.rows if row.end == row.start + 1), key=_size)
        return {row.end: row for row in single}

    @property
    def original_ns(self) -> int | None:
        """Latency of the chain with every layer as it is; None if a layer has no row of its own."""
        unchanged = self.unchanged
        if len(unchanged) < self.length:
            return None
        return sum(row.latency_ns for row in unchanged.values())


def read_latencies(path: Path) -> LatencyTable:
    """Read a table of latencies.

    Columns: ``start``, ``end``, ``latency_ms``; optionally ``kernel``, ``depthwise``, and both of ``latency_low_ms``
    and ``latency_high_ms``, the ends of a 95 % confidence interval. Latencies become whole ns, rounded up, exactly.

    Raises:
        TableError: It cannot be read, a cell is not what it should be, a row is there twice, or layers are missing.
    """
    columns, rows = read_rows(
        path, ("start", "end", "latency_ms"), (*KERNEL_COLUMNS, "latency_low_ms", "latency_high_ms")
    )
    if ("latency_low_ms" in columns) != ("latency_high_ms" in columns):
        raise TableError(f"{path}: an interval has two ends", hint="add latency_low_ms or latency_high_ms, or neither")
    read = tuple(_latency(row) for row in rows)
    _refuse_twins((one.row, one.joined_by) for one in read)
    _refuse_gaps(path, read)
    return LatencyTable(path, read, columns & set(KERNEL_COLUMNS))


def read_importances(path: Path, latencies: LatencyTable, *, flags: bool = False) -> tuple[ImportanceLine, ...]:
    """Read the table of importances that belongs to a table of latencies.

    Columns: ``start``, ``end``, ``importance``; ``kernel`` and ``depthwise`` where the latencies have them.

    Args:
        path: The file.
        latencies: The latencies.
        flags: Whether rows may have ``start_activation`` and ``end_activation``, and are of blocks, not of kernels: so
            for a method of two stages.

    Raises:
        TableError: It cannot be read, a cell is not what it should be, a row is there twice, a row has no latency, or a
            latency has no row.
    """
    columns, rows = read_rows(path, ("start", "end", "importance"), (*KERNEL_COLUMNS, *(FLAGS if flags else ())))
    if len(columns & set(FLAGS)) == 1:
        raise TableError(f"{path}: a block has two boundaries", hint=f"give both of {' and '.join(FLAGS)}, or neither")
    if not flags and columns & set(KERNEL_COLUMNS) != latencies.kinds:
        raise TableError(
            f"{path}: its columns are {_listed(columns & set(KERNEL_COLUMNS))}, and those of {latencies.path} are "
            f"{_listed(latencies.kinds)}: rows cannot be joined",
            hint="give kernel and depthwise in both tables or in neither",
        )
    read = tuple(_importance(row) for row in rows)
    if flags:
        read = tuple(replace(one, kernel=None, depthwise=None) for one in read)
    _refuse_twins((one.row, (*one.joined_by, one.start_activation, one.end_activation)) for one in read)
    _refuse_strangers(path, read, latencies, flags)
    return read


def _latency(row: Row) -> LatencyRow:
    start, end = _block(row)
    latency = row.nanoseconds("latency_ms", LONGEST_NS)
    low = row.nanoseconds("latency_low_ms", LONGEST_NS, down=True) if "latency_low_ms" in row.cells else None
    high = row.nanoseconds("latency_high_ms", LONGEST_NS) if "latency_high_ms" in row.cells else None
    if low is not None and high is not None and not low <= latency <= high:
        raise row.error("latency_ms is not within latency_low_ms and latency_high_ms")
    return LatencyRow(row, start, end, *_kind(row), latency, low, high)


def _importance(row: Row) -> ImportanceLine:
    start, end = _block(row)
    a, b = (row.flag(name) if name in row.cells else True for name in FLAGS)
    return ImportanceLine(row, start, end, *_kind(row), a, b, row.real("importance"))


def _block(row: Row) -> tuple[int, int]:
    start, end = row.whole("start"), row.whole("end")
    if start >= end:
        raise row.error(f"the block ends at layer {end}, which is not after its start, {start}")
    if end > MOST_LAYERS:
        raise row.error(f"the block ends at layer {end}, and a chain has at most {MOST_LAYERS} layers")
    return start, end


def _kind(row: Row) -> KernelKind:
    kernel = row.whole("kernel") if "kernel" in row.cells else None
    return kernel, row.flag("depthwise") if "depthwise" in row.cells else None


def _size(row: LatencyRow) -> tuple[int, int]:
    return row.kernel or 0, row.latency_ns


def _refuse_twins(rows: Iterable[tuple[Row, object]]) -> None:
    seen: dict[object, Row] = {}
    for row, key in rows:
        other = seen.setdefault(key, row)
        if other is not row:
            raise row.error(f"the same as {other.place}", hint="keep one of them")


def _refuse_gaps(path: Path, rows: tuple[LatencyRow, ...]) -> None:
    """Blocks must lead from layer 0 to the last one."""
    reached: dict[int, LatencyRow | None] = {0: None}
    for one in sorted(rows, key=lambda one: one.end):
        if one.start in reached:
            reached.setdefault(one.end, one)
    length = max(one.end for one in rows)
    if length in reached:
        return
    furthest = max(reached)
    if (before := reached[furthest]) is not None:
        raise before.row.error(
            f"the blocks end here, at layer {furthest} of {length}: no row leads on", hint=_leads(furthest)
        )
    first = min(rows, key=lambda one: one.start)
    raise first.row.error(f"the first block begins after layer {first.start}, not at the input", hint=_leads(0))


def _leads(layer: int) -> str:
    return f"add the row of layer {layer + 1} as it is: start {layer}, end {layer + 1}"


def _refuse_strangers(path: Path, values: tuple[ImportanceLine, ...], latencies: LatencyTable, by_block: bool) -> None:
    """Every latency has an importance, and every importance a latency."""

    def key(one: TableRow) -> object:
        return (one.start, one.end) if by_block else one.joined_by

    known, valued = {key(one) for one in latencies.rows}, {key(one) for one in values}
    for one in latencies.rows:
        if key(one) not in valued:
            raise one.row.error(f"{path} has no importance for {one.key}", hint="add its row, or take this one out")
    for value in values:
        if key(value) not in known:
            raise value.row.error(
                f"{latencies.path} has no latency for this block", hint="add its row, or take this one out"
            )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names)) or "without kernel and depthwise"
