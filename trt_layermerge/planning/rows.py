"""Rows of a CSV file whose errors say where they are. What the columns mean is for ``tables``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from io import StringIO
from pathlib import Path

from trt_layermerge.errors import TableError
from trt_layermerge.files import read_bytes
from trt_layermerge.planning.problem import LARGEST_VALUE

_COUNT = re.compile(r"\+?[0-9]{1,9}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_FLAG = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        path: The file.
        number: Number of the row, from 1, the header not counted.
        line: Line of the file that it ends on.
        cells: Text by column.
    """

    path: Path
    number: int
    line: int
    cells: Mapping[str, str]

    @property
    def place(self) -> str:
        """Where the row is in its file."""
        return f"row {self.number} (line {self.line})"

    def error(self, message: str, *, hint: str | None = None) -> TableError:
        """An error that names the file and the row."""
        return TableError(f"{self.path}: {self.place}: {message}", hint=hint)

    def whole(self, column: str) -> int:
        """A whole number that is not negative.

        Raises:
            TableError: It is none.
        """
        text = self.cells[column]
        if not _COUNT.fullmatch(text):
            raise self.error(f"{column} is {text!r}, not a whole number from 0 on")
        return int(text)

    def wholes(self, column: str) -> tuple[int, ...]:
        """Whole numbers that are not negative, such as ``1|3|5``.

        Raises:
            TableError: There is something else.
        """
        numbers = self.cells[column].split("|")
        if not all(_COUNT.fullmatch(number.strip()) for number in numbers):
            raise self.error(f"{column} is {self.cells[column]!r}, not whole numbers such as 1|3|5")
        return tuple(int(number) for number in numbers)

    def flag(self, column: str) -> bool:
        """0 or 1, or false or true.

        Raises:
            TableError: It is none.
        """
        text = self.cells[column]
        if text.lower() not in _FLAG:
            raise self.error(f"{column} is {text!r}, neither 0 nor 1")
        return _FLAG[text.lower()]

    def _finite(self, column: str) -> str:
        """The text of a finite number.

        Raises:
            TableError: It is none.
        """
        text = self.cells[column]
        if not _NUMBER.fullmatch(text):
            raise self.error(f"{column} is {text!r}, not a finite number")
        return text

    def real(self, column: str) -> float:
        """A finite number.

        Raises:
            TableError: It is none, or absurdly large.
        """
        value = float(self._finite(column))
        if not abs(value) <= LARGEST_VALUE:
            raise self.error(f"{column} is {self.cells[column]!r}, which is absurdly large")
        return value

    def nanoseconds(self, column: str, longest: int, *, down: bool = False) -> int:
        """A latency in ms as whole ns, rounded up (or down) exactly: no binary fraction comes between.

        Raises:
            TableError: It is no finite number, negative, or longer than ``longest``.
        """
        value = Decimal(self._finite(column))
        if value < 0:
            raise self.error(f"{column} is {self.cells[column]}, and a latency is not negative")
        if value * 1_000_000 > longest:
            raise self.error(f"{column} is {self.cells[column]} ms, more than eleven days", hint="latencies are in ms")
        rounding = ROUND_FLOOR if down else ROUND_CEILING
        return int(value.scaleb(6, Context(60, rounding)).to_integral_value(rounding))


def read_rows(path: Path, required: Iterable[str], optional: Iterable[str] | None) -> tuple[frozenset[str], list[Row]]:
    """The columns and the rows of a CSV file with a header; empty lines are passed over.

    Args:
        path: The file.
        required: Columns that must be there.
        optional: Columns that may be there; ``None`` for any.

    Raises:
        TableError: It cannot be read, has other columns or none of the required ones, has no rows, or a row has
            another number of cells.
    """
    required = tuple(required)
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise TableError(f"{path}: cannot read the table: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not a text file in UTF-8: {error.reason}", hint="save the table as CSV") from error
    except ValueError as error:
        raise TableError(f"{path} {error}") from error
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if cells in ([], [""]):
                continue
            if not header:
                header = _header(path, cells, required, None if optional is None else tuple(optional))
                continue
            number = len(rows) + 1
            if len(cells) != len(header):
                raise TableError(
                    f"{path}: row {number} (line {reader.line_num}): {len(cells)} cells under {len(header)} columns"
                )
            rows.append(Row(path, number, reader.line_num, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise TableError(f"{path}: row {len(rows) + 1} (line {reader.line_num}): no CSV: {error}") from error
    if not rows:
        raise TableError(f"{path}: the table has no rows", hint=f"its columns are {', '.join(required)}")
    return frozenset(header), rows


def _header(path: Path, names: list[str], required: tuple[str, ...], optional: tuple[str, ...] | None) -> list[str]:
    for name in names:
        if optional is not None and name not in required + optional:
            raise TableError(
                f"{path}: the header: unknown column {name!r}",
                hint=f"there are {', '.join(required + optional)}",
            )
        if names.count(name) > 1:
            raise TableError(f"{path}: the header: column {name!r} is there twice")
    for name in required:
        if name not in names:
            raise TableError(f"{path}: the header: no column {name!r}", hint=f"there are {', '.join(names)}")
    return names
