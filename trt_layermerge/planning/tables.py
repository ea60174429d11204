"""Plain CSV tables of latencies and importances, measured by whatever means: what they must hold, and reading them.

``start,end,kernel,depthwise,latency_ms`` and ``start,end,kernel,depthwise,importance`` for one chain, rows in whatever
order. What is doubtful is an error that names the file and the row. ``tabulated`` makes a problem of them.

Where layers may be narrowed, a latency is of ``in_channels,out_channels``, and beside the rows of choices, importances
have rows of ``tensors,channels``: what it is worth to leave so many channels in these tensors, which narrow together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trt_layermerge.errors import TableError
from trt_layermerge.planning.problem import LONGEST_NS
from trt_layermerge.planning.rows import Row, read_rows

FLAGS = ("start_activation", "end_activation")
KERNEL_COLUMNS = ("kernel", "depthwise")
CHANNELS = ("in_channels", "out_channels")
NARROWED = ("tensors", "channels")
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
        channels: Channels of what the block reads and of what it writes; None if the table has no such columns.
    """

    latency_ns: int
    low_ns: int | None = None
    high_ns: int | None = None
    channels: tuple[int, int] | None = None

    @property
    def ends(self) -> tuple[tuple[int, int], ...]:
        """The tensors before and behind the block, each with its channels; none if the table has no such columns."""
        return () if self.channels is None else ((self.start, self.channels[0]), (self.end, self.channels[1]))

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
class WidthLine:
    """What it is worth to narrow tensors.

    Attributes:
        row: Where it is said.
        tensors: The tensors that narrow together: 0 is the input of the chain, others are the outputs of layers.
        channels: How many channels are left.
        importance: Its importance, larger is better.
    """

    row: Row
    tensors: tuple[int, ...]
    channels: int
    importance: float


@dataclass(frozen=True)
class Importances:
    """A table of importances: what choices are worth, and what widths are."""

    choices: tuple[ImportanceLine, ...]
    widths: tuple[WidthLine, ...]


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

    @cached_property
    def full(self) -> dict[int, int]:
        """Channels of each tensor in the network as it is: the most that a row has; none where no row has any."""
        return dict(sorted(self.ends))  # of each tensor the last one stays

    @cached_property
    def ends(self) -> frozenset[tuple[int, int]]:
        """All tensors that rows read or write, with channels they have there."""
        return frozenset(end for row in self.rows for end in row.ends)

    def narrowed(self, row: LatencyRow) -> tuple[tuple[int, int], ...]:
        """The tensors before and behind a block that have less than all channels, with their channels."""
        return tuple((tensor, channels) for tensor, channels in row.ends if channels < self.full[tensor])

    @property
    def wide(self) -> LatencyTable:
        """The table without rows that are of less than all channels."""
        return replace(self, rows=tuple(row for row in self.rows if not self.narrowed(row)))

    @property
    def unchanged(self) -> dict[int, LatencyRow]:
        """For each layer that has a row of its own, the row of the layer as it is, by the layer's number.

        It is of all channels; if there are several, it is the one of the largest kernel, and of these the slowest.
        """
        single = sorted((row for row in self.wide.rows if row.end == row.start + 1), key=_size)
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

    Columns: ``start``, ``end``, ``latency_ms``; optionally ``kernel``, ``depthwise``, both of ``latency_low_ms`` and
    ``latency_high_ms``, the ends of a 95 % confidence interval, and both of ``in_channels`` and ``out_channels``, which
    the block reads and writes. Latencies become whole ns, rounded up, exactly.

    Raises:
        TableError: It cannot be read, a cell is not what it should be, a row is there twice, or layers are missing.
    """
    columns, rows = read_rows(
        path, ("start", "end", "latency_ms"), (*KERNEL_COLUMNS, "latency_low_ms", "latency_high_ms", *CHANNELS)
    )
    if len(columns & set(CHANNELS)) == 1:
        raise TableError(f"{path}: a block reads and writes", hint=f"give both of {' and '.join(CHANNELS)}, or neither")
    if ("latency_low_ms" in columns) != ("latency_high_ms" in columns):
        raise TableError(f"{path}: an interval has two ends", hint="add latency_low_ms or latency_high_ms, or neither")
    read = tuple(_latency(row) for row in rows)
    _refuse_twins((one.row, (*one.joined_by, one.channels)) for one in read)
    _refuse_gaps(path, read)
    return LatencyTable(path, read, columns & set(KERNEL_COLUMNS))


def read_importances(path: Path, latencies: LatencyTable, *, flags: bool = False) -> Importances:
    """Read the table of importances that belongs to a table of latencies.

    Columns: ``start``, ``end``, ``importance``; ``kernel`` and ``depthwise`` where the latencies have them. Rows of
    ``tensors`` and ``channels`` have their importance besides, and leave all other cells empty.

    Args:
        path: The file.
        latencies: The latencies.
        flags: Whether rows may have ``start_activation`` and ``end_activation``, and are of blocks, not of kernels: so
            for a method of two stages.

    Raises:
        TableError: It cannot be read, a cell is not what it should be, a row is there twice, a row has no latency, or a
            latency has no row.
    """
    optional = (*KERNEL_COLUMNS, *NARROWED, *(FLAGS if flags else ()))
    columns, rows = read_rows(path, ("start", "end", "importance"), optional)
    if len(columns & set(FLAGS)) == 1:
        raise TableError(f"{path}: a block has two boundaries", hint=f"give both of {' and '.join(FLAGS)}, or neither")
    if len(columns & set(NARROWED)) == 1:
        raise TableError(f"{path}: a width is of tensors", hint=f"give both of {' and '.join(NARROWED)}, or neither")
    if not flags and columns & set(KERNEL_COLUMNS) != latencies.kinds:
        raise TableError(
            f"{path}: its columns are {_listed(columns & set(KERNEL_COLUMNS))}, and those of {latencies.path} are "
            f"{_listed(latencies.kinds)}: rows cannot be joined",
            hint="give kernel and depthwise in both tables or in neither",
        )
    read = tuple(_importance(row) for row in rows if not row.cells.get("tensors"))
    if flags:
        read = tuple(replace(one, kernel=None, depthwise=None) for one in read)
    _refuse_twins((one.row, (*one.joined_by, one.start_activation, one.end_activation)) for one in read)
    _refuse_strangers(path, read, latencies, flags)
    return Importances(read, tuple(_width(row) for row in rows if row.cells.get("tensors")))


def _latency(row: Row) -> LatencyRow:
    start, end = _block(row)
    latency = row.nanoseconds("latency_ms", LONGEST_NS)
    low = row.nanoseconds("latency_low_ms", LONGEST_NS, down=True) if "latency_low_ms" in row.cells else None
    high = row.nanoseconds("latency_high_ms", LONGEST_NS) if "latency_high_ms" in row.cells else None
    if low is not None and high is not None and not low <= latency <= high:
        raise row.error("latency_ms is not within latency_low_ms and latency_high_ms")
    inputs, outputs = (row.whole(name) if name in row.cells else None for name in CHANNELS)
    channels = None if inputs is None or outputs is None else (inputs, outputs)
    if channels is not None and min(channels) < 1:
        raise row.error("a tensor has at least one channel")
    return LatencyRow(row, start, end, *_kind(row), latency, low, high, channels)


def _importance(row: Row) -> ImportanceLine:
    if row.cells.get("channels"):
        raise row.error("channels without tensors", hint="a width is of tensors such as 1|3|5")
    start, end = _block(row)
    a, b = (row.flag(name) if name in row.cells else True for name in FLAGS)
    return ImportanceLine(row, start, end, *_kind(row), a, b, row.real("importance"))


def _width(row: Row) -> WidthLine:
    for name, text in row.cells.items():
        if text and name not in (*NARROWED, "importance"):
            raise row.error(f"{name} is {text}, in a row of tensors", hint="leave all but the importance of them empty")
    tensors = tuple(sorted(set(row.wholes("tensors"))))
    return WidthLine(row, tensors, row.whole("channels"), row.real("importance"))


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
