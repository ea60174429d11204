"""Channel groups of two plain tables: which tensors narrow together, to what, and the widths that a latency is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.planning.candidate import MeasuredGroup, MeasuredWidth
from trt_layermerge.planning.tables import LatencyRow, LatencyTable, WidthLine
from trt_layermerge.planning.widths import GroupWidths


@dataclass(frozen=True)
class TiedTensors:
    """The groups of a chain.

    Attributes:
        key: Key of the group of each tensor that is in one: its tensors, such as ``1|3|5``.
        groups: The groups.
    """

    key: Mapping[int, str]
    groups: tuple[MeasuredGroup, ...]

    @classmethod
    def of(cls, table: LatencyTable, path: Path, lines: Iterable[WidthLine]) -> TiedTensors:
        """The groups that rows of widths make.

        Args:
            table: Latencies.
            path: File of the importances, for messages.
            lines: Its rows of widths.

        Raises:
            TableError: They contradict each other or the latencies, or a narrow latency has no width.
        """
        known: dict[str, dict[int, WidthLine]] = {}
        owner: dict[int, WidthLine] = {}
        for line in lines:
            _check_tensors(table, line)
            for tensor in line.tensors:
                other = owner.setdefault(tensor, line)
                if other.tensors != line.tensors:
                    raise line.row.error(f"tensor {tensor} is one of {_key(other)}, says {other.row.place}")
            other = known.setdefault(_key(line), {}).setdefault(line.channels, line)
            if other is not line:
                raise line.row.error(f"the same as {other.row.place}", hint="keep one of them")
        groups = tuple(_group(table, tuple(widths.values())) for widths in known.values())
        tied = cls({tensor: _key(line) for tensor, line in owner.items()}, groups)
        for row in table.rows:
            for tensor, channels in table.narrowed(row):
                if channels not in known.get(tied.key.get(tensor, ""), {}):
                    raise row.row.error(
                        f"{path} has no importance for tensor {tensor} of {channels} channels",
                        hint="add a row of its tensors, channels and importance, or take this one out",
                    )
            if len(dict(tied.widths(row))) < len(tied.widths(row)):
                raise row.row.error(
                    f"tensors {row.start} and {row.end} are one group, and not of the same channels here"
                )
        return tied

    def widths(self, row: LatencyRow) -> GroupWidths:
        """The groups that the block of a latency reads and writes, with their widths."""
        named = ((self.key[tensor], channels) for tensor, channels in row.ends if tensor in self.key)
        return tuple(dict.fromkeys(named))


def _key(line: WidthLine) -> str:
    return "|".join(map(str, line.tensors))


def _check_tensors(table: LatencyTable, line: WidthLine) -> None:
    """Tensors are there, have the same channels, and in some latency those of the line."""
    for tensor in line.tensors:
        if tensor not in table.full:
            raise line.row.error(f"{table.path} does not say how many channels tensor {tensor} has")
        if table.full[tensor] != table.full[line.tensors[0]]:
            counts = [table.full[one] for one in (line.tensors[0], tensor)]
            raise line.row.error(
                f"tensors {line.tensors[0]} and {tensor} have {counts[0]} and {counts[1]} channels",
                hint="what narrows together has as many channels",
            )
    for tensor in line.tensors:
        if (tensor, line.channels) not in table.ends:
            raise line.row.error(f"{table.path} has no latency of {line.channels} channels in tensor {tensor}")
    if line.channels == table.full[line.tensors[0]] and line.importance:
        raise line.row.error("these are all channels, and to narrow nothing is worth 0", hint="take this row out")


def _group(table: LatencyTable, lines: Sequence[WidthLine]) -> MeasuredGroup:
    full = table.full[lines[0].tensors[0]]
    narrower = (
        MeasuredWidth(line.channels, loss_before=0.0, loss_after=0.0, importance=line.importance)
        for line in lines
        if line.channels < full
    )
    return MeasuredGroup(_key(lines[0]), full, tuple(narrower))
