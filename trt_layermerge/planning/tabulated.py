"""Two plain tables become a problem as a method sees it: rows are joined by their key, and each is a candidate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trt_layermerge.errors import InputError, TableError
from trt_layermerge.planning.candidate import Candidate
from trt_layermerge.planning.intervals import Interval
from trt_layermerge.planning.methods.base import Method, TwoStage
from trt_layermerge.planning.problem import Problem
from trt_layermerge.planning.tables import (
    ImportanceLine,
    LatencyRow,
    LatencyTable,
    read_importances,
    read_latencies,
)
from trt_layermerge.planning.tied_tensors import TiedTensors
from trt_layermerge.planning.widths import GroupWidths


def problem_from_tables(
    method: Method, latency: Path, importance: Path, *, original_ns: int | None = None, fixed_ns: int = 0
) -> Problem:
    """The problem of two tables as a method sees it; importances are taken as they are, in the method's own scale.

    The row of a layer's largest kernel keeps it, and one of kernel 0 or 1 beside that is what is left when its
    convolution is dropped; all other rows merge. A method of two stages sees one merge of each block. A method that
    does not narrow sees the rows of all channels.

    Args:
        method: The method.
        latency: Table of latencies.
        importance: Table of importances.
        original_ns: Latency of the original network in ns; None for the sum of its layers, plus ``fixed_ns``. Where a
            layer has no row of its own, the tiling of the most blocks stands in.
        fixed_ns: Latency outside of the chain in ns.

    Raises:
        TableError: A table is not what it should be, or the method finds no way to tile the chain with it.
    """
    table, by_block = read_latencies(latency), isinstance(method, TwoStage)
    if not method.narrows:
        table = table.wide
    if by_block:
        _refuse_kernels(table, method)
    values = read_importances(importance, table, flags=by_block)
    tied = TiedTensors.of(table, importance, values.widths) if method.narrows else TiedTensors({}, ())
    candidates = _of_blocks(table, values.choices) if by_block else _of_kernels(table, values.choices, tied)
    if original_ns is None:
        chain_ns = table.original_ns
        original_ns = max(1, (_finest(table.wide) if chain_ns is None else chain_ns) + fixed_ns)
    try:
        return method.problem([table.length], candidates, fixed_ns, original_ns, tied.groups)
    except InputError as error:
        raise TableError(f"{latency}, {importance}: {error.message}", hint=error.hint) from error


def fastest_intervals(method: TwoStage, latency: Path) -> tuple[Interval, ...]:
    """Stage one of a method for a table of latencies: every interval's fastest arrangement, with its breaks.

    Raises:
        TableError: The table is not what it should be, or has several rows for one block.
    """
    table = read_latencies(latency).wide
    _refuse_kernels(table, method)
    latencies = {(row.start, row.end): row.latency_ns for row in table.rows}
    return tuple(method.stage_one(table.length, latencies).values())


def _of_kernels(table: LatencyTable, values: Iterable[ImportanceLine], tied: TiedTensors) -> list[Candidate]:
    """One candidate for each row."""
    worth = {one.joined_by: one.importance for one in values}
    unchanged = {row.key for row in table.unchanged.values()}
    return [_candidate(row, _what(row, unchanged), worth[row.joined_by], tied.widths(row)) for row in table.rows]


def _of_blocks(table: LatencyTable, values: Iterable[ImportanceLine]) -> list[Candidate]:
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


def _candidate(row: LatencyRow, kind: str, importance: float, widths: GroupWidths = ()) -> Candidate:
    return Candidate(
        0,
        row.start,
        row.end,
        row.key,
        kind,
        row.latency_ns,
        reducible=True,
        loss_before=0.0,
        loss_after=0.0,
        importance=importance,
        low_ns=row.low_ns,
        high_ns=row.high_ns,
        kernel=row.kernel,
        depthwise=row.depthwise,
        dropped=0 if kind == "merge" else None,
        widths=widths,
    )


def _finest(table: LatencyTable) -> int:
    """Latency of the tiling of the most blocks, of these the slowest."""
    finest = {0: (0, 0)}
    for row in sorted(table.rows, key=lambda row: row.end):
        if row.start in finest:
            blocks, latency = finest[row.start]
            finest[row.end] = max(finest.get(row.end, (0, 0)), (blocks + 1, latency + row.latency_ns))
    return finest[table.length][1]


def _refuse_kernels(table: LatencyTable, method: Method) -> None:
    """A method of two stages knows one merge of each block."""
    seen: dict[tuple[int, int], LatencyRow] = {}
    for one in table.rows:
        other = seen.setdefault((one.start, one.end), one)
        if other is not one:
            raise one.row.error(
                f"the same block as {other.row.place}, and method {method.name} merges a block in one way only",
                hint="keep the row that drops no convolution",
            )
