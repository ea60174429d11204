"""The importance table: what each choice did to the network, raw, before and after, one line each.

How a method turns these into importance (the change itself, or its exponential) is the method's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path

from trt_layermerge.journal import Format, Journal, typed

_NUMBER = (float, int)
_FORMAT = Format(
    "importance table",
    5,  # since 5, losses are expected ones; since 4, norms behind a change move as what reaches them does
    {
        "weights": (str,),
        "task": (str,),
        "estimator": (str,),
        "calibration": (int,),
        "held_out": (int,),
        "max_kernel": (int,),
        "training": (str,),
        "task_content": (str,),
    },
    "restore the file, or remove the line to have its choice measured again",
    defaults={"task_content": ""},
    renewing=frozenset({"task_content"}),
)
_ROW = {
    "choice": (str,),
    "loss_before": _NUMBER,
    "loss_after": _NUMBER,
    "accuracy_before": _NUMBER,
    "accuracy_after": _NUMBER,
    "unexplained": (float, int, type(None)),
    "seconds": _NUMBER,
}
_KEPT = "kept"


@dataclass(frozen=True)
class TableKey:
    """What all rows have in common.

    Attributes:
        weights: Hash of the network's state; how its spec was spelled is of no consequence.
        task: Name of the task.
        estimator: Name of the estimator.
        calibration: Images that fits were solved on, and statistics of batch norms corrected.
        held_out: Images that losses were measured on; 0 for as many as were trained on.
        max_kernel: The largest kernel that blocks might be fitted with, which decides what a fit samples.
        training: Settings of the estimator, in words; empty where it has none.
        task_content: Hash of what the task is; see ``training.task_identity``. Empty in tables from before it was kept.
    """

    weights: str
    task: str
    estimator: str
    calibration: int
    held_out: int
    max_kernel: int
    training: str = ""
    task_content: str = ""


@dataclass(frozen=True)
class ImportanceRow:
    """What one choice did when it was the only change.

    Attributes:
        choice: Key of the choice.
        loss_before: Held-out loss of the original; of ``gates``, of the network with its gates trained. Of ``fit`` and
            ``product`` it is the one expected without labels, where the task tells that.
        loss_after: Held-out loss with this choice.
        accuracy_before: Held-out accuracy before, likewise, 0..1.
        accuracy_after: Held-out accuracy with this choice.
        unexplained: Of a fit, the share of its target's variance that it misses on its calibration data.
        seconds: What measuring it took.
        kept: Of a narrowed channel group, the channels that stay.
    """

    choice: str
    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    unexplained: float | None
    seconds: float
    kept: tuple[int, ...] = ()


class ImportanceTable:
    """One table on disk and in memory. ``ImportanceTable.open`` makes it."""

    def __init__(self, journal: Journal) -> None:
        """Read the rows of a journal."""
        self._journal = journal
        self._rows: dict[str, ImportanceRow] = {}
        for number, record in journal:
            try:
                row = ImportanceRow(**typed(record, _ROW, also=(_KEPT,)), kept=_kept(record.get(_KEPT, [])))
                _require_finite(row)
            except ValueError as error:
                raise journal.malformed(number, error) from error
            self._rows[row.choice] = row

    @classmethod
    def open(cls, path: Path, key: TableKey) -> ImportanceTable:
        """Read a table, or begin one.

        Raises:
            IncompatibleError: It belongs to another network, task or split.
            TableError: It is damaged; the message names the line.
        """
        return cls(Journal.open(path, _FORMAT, asdict(key)))

    @classmethod
    def read(cls, path: Path) -> ImportanceTable:
        """Read a table, whatever its key.

        Raises:
            TableError: It is damaged; the message names the line.
        """
        return cls(Journal.read(path, _FORMAT))

    @property
    def path(self) -> Path:
        """The file."""
        return self._journal.path

    @property
    def weights(self) -> str:
        """Hash of the network's state that its rows are of."""
        return str(self._journal.key["weights"])

    @property
    def sha256(self) -> str:
        """Hash of the file as it is now."""
        return self._journal.sha256

    def get(self, choice: str) -> ImportanceRow | None:
        """The row of a choice."""
        return self._rows.get(choice)

    def add(self, row: ImportanceRow) -> None:
        """Append a row; when this returns it is on disk.

        Raises:
            ValueError: A number is not finite: the caller must say what that means.
        """
        _require_finite(row)
        self._journal.append(_record(row))
        self._rows[row.choice] = row

    def __len__(self) -> int:
        """Number of choices measured."""
        return len(self._rows)

    def __iter__(self) -> Iterator[ImportanceRow]:
        """The rows, in the order in which they were measured."""
        return iter(self._rows.values())


def _record(row: ImportanceRow) -> dict[str, object]:
    """A row as it is written; one of a choice as before there were others."""
    record = asdict(row)
    return record if row.kept else {name: value for name, value in record.items() if name != _KEPT}


def _kept(value: object) -> tuple[int, ...]:
    """The channels that stay, from a record.

    Raises:
        ValueError: They are no ascending numbers.
    """
    numbers = value if isinstance(value, list) else [None]
    if not all(type(one) is int and one >= 0 for one in numbers) or numbers != sorted(set(numbers)):
        raise ValueError(f"has {value!r} as {_KEPT}")
    return tuple(numbers)


def _require_finite(row: ImportanceRow) -> None:
    for name, value in asdict(row).items():
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"has {value} as {name}, which must be finite")


assert {*_ROW, _KEPT} == {field.name for field in fields(ImportanceRow)}
