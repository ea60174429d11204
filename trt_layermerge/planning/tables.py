"""Plain CSV tables of latencies and importances, measured by whatever means, become a problem.

``start,end,kernel,depthwise,latency_ms`` and ``start,end,kernel,depthwise,importance`` for one chain; rows of the two
are joined by their key, in whatever order they come. What is doubtful is an error that names the file and the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trt_layermerge.errors import InputError, TableError
from trt_layermerge.planning.candidate import Candidate, Method
from trt_layermerge.planning.depth import Interval, fastest
from trt_layermerge.planning.methods import formulate, method_named
from trt_layermerge.planning.problem import LONGEST_NS, Problem
from trt_layermerge.planning.rows import Row, read_rows

FLAGS = ("start_activation", "end_activation")
KINDS = ("kernel", "depthwise")
MOST_LAYERS = 2000  # more of them in one chain are a slip of the pen, and would take all memory there is

Kind = tuple[int | None, bool | None]


@dataclass(frozen=True)
class LatencyRow:
    """What a block takes.

    Attributes:
        row: Where it is said.
        start: The block is (start, end].
        end: Last layer of the block.
        kernel: Kernel of its one convolution, 0 for none; None if the table has no such column.
        depthwise: Whether that is depthwise; None if the table has no such column.
        latency_ns: Latency in ns, rounded up.
        low_ns: Lower end of its 95 % confidence interval, rounded down; None if the table has no such column.
        high_ns: Upper end, rounded up.
    """

    row: Row
    start: int
    end: int
    kernel: int | None
    depthwise: bool | None
    latency_ns: int
    low_ns: int | None = None
    high_ns: int | None = None

    @property
    def key(self) -> str:
        """Names the choice in plans."""
        kernel = "" if self.kernel is None else f" k{self.kernel}"
        return f"{self.start}-{self.end}{kernel}" + {None: "", False: " dense", True: " dw"}[self.depthwise]


@dataclass(frozen=True)
class ImportanceRow:
    """What a choice for a block is worth.

    Attributes:
        row: Where it is said.
        start: The block is (start, end].
        end: Last layer of the block.
        kernel: As of the latency.
        depthwise: As of the latency.
        start_activation: Whether the activation before the block was there, for method ``depth``.
        end_activation: Whether the activation after it was there.
        importance: Its importance, larger is better.
    """

    row: Row
    start: int
    end: int
    kernel: int | None
    depthwise: bool | None
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
    columns, rows = read_rows(path, ("start", "end", "latency_ms"), (*KINDS, "latency_low_ms", "latency_high_ms"))
    if ("latency_low_ms" in columns) != ("latency_high_ms" in columns):
        raise TableError(f"{path}: an interval has two ends", hint="add latency_low_ms or latency_high_ms, or neither")
    read = tuple(_latency(row) for row in rows)
    _refuse_twins((one.row, _key(one)) for one in read)
    _refuse_gaps(path, read)
    return LatencyTable(path, read, columns & set(KINDS))


def read_importances(path: Path, latencies: LatencyTable, *, flags: bool = False) -> tuple[ImportanceRow, ...]:
    """Read the table of importances that belongs to a table of latencies.

    Columns: ``start``, ``end``, ``importance``; ``kernel`` and ``depthwise`` where the latencies have them.

    Args:
        path: The file.
        latencies: The latencies.
        flags: Whether rows may have ``start_activation`` and ``end_activation``, and are of blocks, not of kernels: so
            for method ``depth``.

    Raises:
        TableError: It cannot be read, a cell is not what it should be, a row is there twice, a row has no latency, or a
            latency has no row.
    """
    columns, rows = read_rows(path, ("start", "end", "importance"), (*KINDS, *(FLAGS if flags else ())))
    if len(columns & set(FLAGS)) == 1:
        raise TableError(f"{path}: a block has two boundaries", hint=f"give both of {' and '.join(FLAGS)}, or neither")
    if not flags and columns & set(KINDS) != latencies.kinds:
        raise TableError(
            f"{path}: its columns are {_listed(columns & set(KINDS))}, and those of {latencies.path} are "
            f"{_listed(latencies.kinds)}: rows cannot be joined",
            hint="give kernel and depthwise in both tables or in neither",
        )
    read = tuple(_importance(row) for row in rows)
    if flags:
        read = tuple(replace(one, kernel=None, depthwise=None) for one in read)
    _refuse_twins((one.row, (*_key(one), one.start_activation, one.end_activation)) for one in read)
    _refuse_strangers(path, read, latencies, flags)
    return read


def problem_from_tables(
    method: str | Method, latency: Path, importance: Path, *, original_ns: int | None = None, fixed_ns: int = 0
) -> Problem:
    """The problem of two tables as a method sees it; importances are taken as they are, in the method's own scale.

    Method ``layer-only`` sees the rows of single layers: the row of a layer's largest kernel keeps it, and one of
    kernel 0 or 1 beside that is what is left when its convolution is dropped. Method ``depth`` sees one merge of each
    block.

    Args:
        method: The method, or its name; ``Depth(alpha)`` normalises.
        latency: Table of latencies.
        importance: Table of importances.
        original_ns: Latency of the original network in ns; None for the sum of its layers, plus ``fixed_ns``. Where a
            layer has no row of its own, the tiling of the most blocks stands in.
        fixed_ns: Latency outside of the chain in ns.

    Raises:
        UsageError: There is no such method.
        TableError: A table is not what it should be, or the method finds no way to tile the chain with it.
    """
    chosen = method_named(method) if isinstance(method, str) else method
    table = read_latencies(latency)
    depth = chosen.name == "depth"
    if depth:
        _refuse_kernels(table)
    values = read_importances(importance, table, flags=depth)
    candidates = _of_blocks(table, values) if depth else _of_kernels(table, values)
    if original_ns is None:
        chain_ns = table.original_ns
        original_ns = max(1, (_finest(table) if chain_ns is None else chain_ns) + fixed_ns)
    try:
        return formulate(chosen, [table.length], candidates, fixed_ns, original_ns)
    except InputError as error:
        raise TableError(f"{latency}, {importance}: {error.message}", hint=error.hint) from error


def fastest_intervals(latency: Path) -> tuple[Interval, ...]:
    """Stage one of method ``depth`` for a table of latencies: every interval's fastest arrangement, with its breaks.

    Raises:
        TableError: The table is not what it should be, or has several rows for one block.
    """
    table = read_latencies(latency)
    _refuse_kernels(table)
    return tuple(fastest(table.length, {(row.start, row.end): row.latency_ns for row in table.rows}).values())


def _latency(row: Row) -> LatencyRow:
    start, end = _block(row)
    latency = row.nanoseconds("latency_ms", LONGEST_NS)
    low = row.nanoseconds("latency_low_ms", LONGEST_NS, down=True) if "latency_low_ms" in row.cells else None
    high = row.nanoseconds("latency_high_ms", LONGEST_NS) if "latency_high_ms" in row.cells else None
    if low is not None and high is not None and not low <= latency <= high:
        raise row.error("latency_ms is not within latency_low_ms and latency_high_ms")
    return LatencyRow(row, start, end, *_kind(row), latency, low, high)


def _importance(row: Row) -> ImportanceRow:
    start, end = _block(row)
    a, b = (row.flag(name) if name in row.cells else True for name in FLAGS)
    return ImportanceRow(row, start, end, *_kind(row), a, b, row.real("importance"))


def _block(row: Row) -> tuple[int, int]:
    start, end = row.whole("start"), row.whole("end")
    if start >= end:
        raise row.error(f"the block ends at layer {end}, which is not after its start, {start}")
    if end > MOST_LAYERS:
        raise row.error(f"the block ends at layer {end}, and a chain has at most {MOST_LAYERS} layers")
    return start, end


def _kind(row: Row) -> Kind:
    kernel = row.whole("kernel") if "kernel" in row.cells else None
    return kernel, row.flag("depthwise") if "depthwise" in row.cells else None


def _key(one: LatencyRow | ImportanceRow) -> tuple[int, int, int | None, bool | None]:
    return one.start, one.end, one.kernel, one.depthwise


def _size(row: LatencyRow) -> tuple[int, int]:
    return row.kernel or 0, row.latency_ns


def _of_kernels(table: LatencyTable, values: Iterable[ImportanceRow]) -> list[Candidate]:
    """One candidate for each row."""
    worth = {_key(one): one.importance for one in values}
    unchanged = {row.key for row in table.unchanged.values()}
    return [_candidate(row, _what(row, unchanged), worth[_key(row)]) for row in table.rows]


def _of_blocks(table: LatencyTable, values: Iterable[ImportanceRow]) -> list[Candidate]:
    """One candidate for each block and state of its boundaries."""
    rows = {(row.start, row.end): row for row in table.rows}
    candidates = []
    for one in values:
        row = rows[one.start, one.end]
        kind = "keep" if row.end == row.start + 1 else "merge"
        candidate = _candidate(row, kind, one.importance)
        a, b = one.start_activation, one.end_activation
        candidates.append(replace(candidate, start_activation=a, end_activation=b))
    return candidates


def _what(row: LatencyRow, unchanged: set[str]) -> str:
    if row.key in unchanged:
        return "keep"
    single = row.end == row.start + 1
    return "identity" if row.kernel == 0 or (single and row.kernel == 1) else "merge"


def _candidate(row: LatencyRow, kind: str, importance: float) -> Candidate:
    return Candidate(
        0,
        row.start,
        row.end,
        row.key,
        kind,
        droppable=True,
        latency_ns=row.latency_ns,
        loss_before=0.0,
        loss_after=0.0,
        importance=importance,
        low_ns=row.low_ns,
        high_ns=row.high_ns,
        kernel=row.kernel,
        depthwise=row.depthwise,
        dropped=0 if kind == "merge" else None,
    )


def _finest(table: LatencyTable) -> int:
    """Latency of the tiling of the most blocks, of these the slowest."""
    finest = {0: (0, 0)}
    for row in sorted(table.rows, key=lambda row: row.end):
        if row.start in finest:
            blocks, latency = finest[row.start]
            finest[row.end] = max(finest.get(row.end, (0, 0)), (blocks + 1, latency + row.latency_ns))
    return finest[table.length][1]


def _refuse_twins(rows: Iterable[tuple[Row, object]]) -> None:
    seen: dict[object, Row] = {}
    for row, key in rows:
        other = seen.setdefault(key, row)
        if other is not row:
            raise row.error(f"the same as {other.place}", hint="keep one of them")


def _refuse_kernels(table: LatencyTable) -> None:
    """Method ``depth`` knows one merge of each block."""
    seen: dict[tuple[int, int], LatencyRow] = {}
    for one in table.rows:
        other = seen.setdefault((one.start, one.end), one)
        if other is not one:
            raise one.row.error(
                f"the same block as {other.row.place}, and method depth merges a block in one way only",
                hint="keep the row that drops no convolution",
            )


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


def _refuse_strangers(path: Path, values: tuple[ImportanceRow, ...], latencies: LatencyTable, by_block: bool) -> None:
    """Every latency has an importance, and every importance a latency."""
    known: Mapping[object, LatencyRow] = {(_key(one)[:2] if by_block else _key(one)): one for one in latencies.rows}
    valued = {_key(one)[:2] if by_block else _key(one) for one in values}
    for key, one in known.items():
        if key not in valued:
            raise one.row.error(f"{path} has no importance for {one.key}", hint="add its row, or take this one out")
    for value in values:
        if (_key(value)[:2] if by_block else _key(value)) not in known:
            raise value.row.error(
                f"{latencies.path} has no latency for this block", hint="add its row, or take this one out"
            )


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(names)) or "without kernel and depthwise"
