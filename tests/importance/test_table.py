"""The importance table survives kills and refuses what is not its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trt_layermerge.errors import Caution, ExitCode, IncompatibleError, TableError
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable, TableKey

KEY = TableKey("abc", "task", "fit", 512, 1024, 7)
ROWS = [
    ImportanceRow("0:0-2 fit 3x3 g1", 0.5, 0.75, 0.9, 0.8, 0.125, 0.2),
    ImportanceRow("0:0-2 merge 5x5 g1", 0.5, 1e6, 0.9, 0, None, 0.1),
    ImportanceRow("0:2-3 identity", 0.5, 0.1 + 0.2, 0.9, 0.9, None, 1),
]


@pytest.fixture
def path(tmp_path):
    """A table with three rows."""
    table = ImportanceTable.open(tmp_path / "importance.jsonl", KEY)
    for row in ROWS:
        table.add(row)
    return table.path


def test_rows_come_back_as_they_were(path):
    for table in (ImportanceTable.open(path, KEY), ImportanceTable.read(path)):
        assert list(table) == ROWS
        assert len(table) == 3
        assert [table.get(row.choice) for row in ROWS] == ROWS
        assert table.get("0:0-1 keep") is None


def test_a_later_row_of_a_choice_counts(path):
    table = ImportanceTable.open(path, KEY)
    table.add(replace(ROWS[0], loss_after=2.0))
    again = ImportanceTable.open(path, KEY)
    assert len(again) == len(table) == 3
    assert again.get(ROWS[0].choice) == table.get(ROWS[0].choice) == replace(ROWS[0], loss_after=2.0)
    assert again.sha256 == table.sha256


def test_torn_at_every_byte(path):
    """A kill loses the row that was in flight; the next one is written whole."""
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole)):
        path.write_bytes(whole[:end])
        table = ImportanceTable.open(path, KEY)
        assert list(table) == ROWS[:2]
        table.add(ROWS[2])
        assert path.read_bytes() == whole
        assert list(ImportanceTable.open(path, KEY)) == ROWS


def test_torn_key_begins_anew(path):
    whole = path.read_bytes()
    for end in range(whole.index(b"\n") + 1):
        path.write_bytes(whole[:end])
        table = ImportanceTable.open(path, KEY)
        table.add(ROWS[0])
        assert list(ImportanceTable.open(path, KEY)) == ROWS[:1]


@pytest.mark.parametrize("field", ["weights", "task", "calibration", "held_out"])
def test_another_key_is_refused(path, field):
    before, value = path.read_bytes(), getattr(KEY, field)
    other = replace(KEY, **{field: value + ("x" if isinstance(value, str) else 1)})
    with pytest.raises(IncompatibleError, match=field) as caught:
        ImportanceTable.open(path, other)
    assert caught.value.exit_code == ExitCode.INCOMPATIBLE == 9
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"choice": "a"}',
        b'{"choice": "a", "loss_before": NaN}',
        b'{"choice": "a", "loss_before": 1, "loss_after": 1e999, "accuracy_before": 1, "accuracy_after": 1, '
        b'"unexplained": null, "seconds": 1}',
        b'{"choice": "a", "loss_before": true, "loss_after": 1, "accuracy_before": 1, "accuracy_after": 1, '
        b'"unexplained": null, "seconds": 1}',
        b'{"choice": 1, "loss_before": 1, "loss_after": 1, "accuracy_before": 1, "accuracy_after": 1, '
        b'"unexplained": null, "seconds": 1}',
        b'{"choice": "a", "loss_before": 1, "loss_after": 1, "accuracy_before": 1, "accuracy_after": 1, '
        b'"unexplained": null, "seconds": 1, "more": 1}',
    ],
)
def test_a_damaged_line_is_named_and_left(path, line):
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    before = path.read_bytes()
    for read in (lambda: ImportanceTable.open(path, KEY), lambda: ImportanceTable.read(path)):
        with pytest.raises(TableError, match="line 3") as caught:
            read()
        assert caught.value.exit_code == ExitCode.BAD_INPUT == 3
        assert caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("field", ["loss_after", "accuracy_after", "unexplained"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(path, field, value):
    table, before = ImportanceTable.open(path, KEY), path.read_bytes()
    with pytest.raises(ValueError, match=field):
        table.add(replace(ROWS[0], choice="new", **{field: value}))
    assert path.read_bytes() == before
    assert table.get("new") is None


def test_another_task_of_the_same_name_is_said_and_measured_again(path):
    whole, other = path.read_bytes(), replace(KEY, task_content="other")
    with pytest.warns(
        Caution, match=r"is of something else: task_content: , here other.*kept as .*importance-\w{8}\.jsonl"
    ):
        table = ImportanceTable.open(path, other)
    assert len(table) == 0 and path.read_bytes() == whole, "looking at it changes nothing"
    table.add(ROWS[0])
    assert list(ImportanceTable.open(path, other)) == ROWS[:1]
    (aside,) = path.parent.glob("importance-*.jsonl")
    assert aside.read_bytes() == whole
    with pytest.raises(IncompatibleError, match="weights: abc, here x"):
        ImportanceTable.open(path, replace(KEY, weights="x", task_content="third"))


def test_tables_from_before_the_content_was_kept_are_measured_again(path):
    path.write_bytes(path.read_bytes().replace(b', "task_content": ""', b""))
    assert len(ImportanceTable.open(path, KEY)) == 3
    with pytest.warns(Caution, match="task_content: , here new"):
        assert len(ImportanceTable.open(path, replace(KEY, task_content="new"))) == 0
