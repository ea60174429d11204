from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge.errors import ExitCode, IncompatibleError, TableError
from trt_layermerge.journal import Format, Journal, Record, differences, typed

FORM = Format("test table", 3, {"device": (str,), "threads": (int,)}, "mend the line")
KEY = {"device": "Ω", "threads": 1}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(-1e100, 1e100) | TEXT
ROWS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=4)
IN_A_FOLDER = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, rows: list[Record]) -> bytes:
    path.unlink(missing_ok=True)
    journal = Journal.open(path, FORM, KEY)
    for row in rows:
        journal.append(row)
    return path.read_bytes() if rows else b""


def read(path: Path) -> list[Record]:
    return [row for _, row in Journal.open(path, FORM, KEY)]


@IN_A_FOLDER
@given(rows=ROWS)
def test_what_is_appended_is_read_with_its_line(tmp_path: Path, rows: list[Record]) -> None:
    write(tmp_path / "t", rows)
    assert list(Journal.open(tmp_path / "t", FORM, KEY)) == list(enumerate(rows, start=2))


@IN_A_FOLDER
@given(rows=ROWS, new=st.dictionaries(TEXT, VALUES), data=st.data())
def test_a_kill_costs_the_row_in_flight_only(
    tmp_path: Path, rows: list[Record], new: Record, data: st.DataObject
) -> None:
    content = write(tmp_path / "t", rows)
    torn = content[: data.draw(st.integers(0, len(content)))]
    (tmp_path / "t").write_bytes(torn)
    survivors = rows[: max(torn.count(b"\n") - 1, 0)]
    journal = Journal.open(tmp_path / "t", FORM, KEY)
    assert [row for _, row in journal] == survivors
    assert (tmp_path / "t").read_bytes() == torn, "looking changes nothing"
    journal.append(new)
    assert read(tmp_path / "t") == [*survivors, new]


@IN_A_FOLDER
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused_in_words(tmp_path: Path, position: int, byte: int) -> None:
    content = bytearray(write(tmp_path / "t", [{"a": 1}, {"b": [2.5, None]}]))
    content[position % len(content)] = byte
    (tmp_path / "t").write_bytes(content)
    try:
        read(tmp_path / "t")
    except (TableError, IncompatibleError):
        assert (tmp_path / "t").read_bytes() == content


def test_a_table_without_rows_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "deep" / "t", FORM, KEY)
    assert list(journal) == [] and journal.sha256 == hashlib.sha256(b"").hexdigest()
    assert list(tmp_path.iterdir()) == []
    journal.append({})
    assert journal.sha256 == hashlib.sha256((tmp_path / "deep" / "t").read_bytes()).hexdigest()


def test_two_that_begin_at_once_lose_nothing(tmp_path: Path) -> None:
    one, two = Journal.open(tmp_path / "t", FORM, KEY), Journal.open(tmp_path / "t", FORM, KEY)
    one.append({"a": 1})
    two.append({"a": 2})
    one.append({"a": 3})
    assert read(tmp_path / "t") == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_rows_are_never_put_under_the_key_of_another_who_was_first(tmp_path: Path) -> None:
    ours, theirs = Journal.open(tmp_path / "t", FORM, KEY), Journal.open(tmp_path / "t", FORM, KEY | {"threads": 2})
    theirs.append({})
    with pytest.raises(IncompatibleError, match="threads: 2, here 1"):
        ours.append({})
    assert len((tmp_path / "t").read_text().splitlines()) == 2


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    before = write(tmp_path / "t", [{}])
    with pytest.raises(IncompatibleError, match=r"test table .*: device: Ω, here other") as caught:
        Journal.open(tmp_path / "t", FORM, KEY | {"device": "other"})
    assert caught.value.exit_code is ExitCode.INCOMPATIBLE and "--profiles" in str(caught.value)
    assert (tmp_path / "t").read_bytes() == before
    assert Journal.read(tmp_path / "t", FORM).key == KEY


FIRST = json.dumps({"format": "trt_layermerge.test_table", "version": 3} | KEY)
DAMAGED = {
    "notes": ("my notes\n", "line 1: the line is not JSON"),
    "other table": ('{"format": "x"}\n', "line 1: the line does not begin a test table"),
    "key field missing": (FIRST.replace('"threads"', '"treads"') + "\n", "unknown field 'treads'"),
    "key of another type": (FIRST.replace('"threads": 1', '"threads": true') + "\n", "True as threads"),
    "list": (FIRST + "\n[]\n", "line 2: the line is not a JSON object"),
    "infinity": (FIRST + '\n{"a": Infinity}\n', "line 2: .*Infinity is not a number"),
    "deep": (FIRST + "\n" + "[" * 100_000 + "\n", "line 2"),
    "blank": (FIRST + "\n\n", "line 2"),
    "no whole line, and not ours": ("my", "line 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_table_is_named_with_its_line_and_left_alone(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    (tmp_path / "t").write_text(content)
    with pytest.raises(TableError, match=message) as caught:
        Journal.open(tmp_path / "t", FORM, KEY)
    assert caught.value.exit_code is ExitCode.BAD_INPUT and caught.value.hint
    assert (tmp_path / "t").read_text() == content


def test_another_version_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(FIRST.replace('"version": 3', '"version": 4') + "\n")
    with pytest.raises(IncompatibleError, match=r"version 4 .* reads 3"):
        Journal.open(tmp_path / "t", FORM, KEY)
    with pytest.raises(TableError, match="cannot be read: Is a directory"):
        Journal.open(tmp_path, FORM, KEY)


def test_numbers_that_json_does_not_have_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        Journal.open(tmp_path / "t", FORM, KEY).append({"a": float("nan")})
    assert not (tmp_path / "t").exists()


@given(record=st.dictionaries(st.sampled_from("abcd"), VALUES))
def test_typed_returns_the_fields_of_their_types_or_names_one(record: Record) -> None:
    types = {"a": (int,), "b": (str, type(None))}
    right = record.keys() - {"d"} == {"a", "b"} and type(record["a"]) is int and type(record["b"]) in types["b"]
    if right:
        assert typed(record, types, also=("d",)) == {name: record[name] for name in "ab"}
    else:
        with pytest.raises(ValueError, match=r"field '[abc]'|as [ab]"):
            typed(record, types, also=("d",))


@given(st.dictionaries(st.text(), st.integers()))
def test_differences_are_none_of_equals(key: dict[str, int]) -> None:
    assert differences(key, dict(key)) == []
    assert len(differences(key, {name: value + 1 for name, value in key.items()})) == len(key)
