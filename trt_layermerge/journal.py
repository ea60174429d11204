"""A table on disk that survives a kill: JSON lines, the first one its key, each other one a row.

Rows are only ever appended, one write and one fsync each, so that a kill loses what was in flight and nothing else: a
torn last line is dropped. The file comes into being with its first row, so that looking at a table leaves nothing
behind. A table whose key is another one's is refused, a damaged one is left untouched and named with its line. What a
row means is for the package that keeps the table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trt_layermerge import files
from trt_layermerge.errors import IncompatibleError, TableError, say

Record = dict[str, Any]
Types = Mapping[str, tuple[type, ...]]
"""Field name -> the types that it may have."""


@dataclass(frozen=True)
class Format:
    """What kind of table it is.

    Attributes:
        name: In messages, such as ``profile``.
        version: Of the format; a reader refuses others.
        key: Fields of the first line.
        remedy: What to do about a damaged line.
        defaults: What fields of the first line mean that a file written before there were such fields does not have.
        renewing: Fields of the first line whose change makes all rows worthless. A table that differs in nothing else
            is set aside when the first row of the new one comes.
    """

    name: str
    version: int
    key: Types
    remedy: str
    defaults: Record = field(default_factory=dict)
    renewing: frozenset[str] = frozenset()

    @property
    def tag(self) -> str:
        """What the first line says of itself."""
        return f"trt_layermerge.{self.name.replace(' ', '_')}"


class Journal:
    """One table. ``Journal.open`` or ``Journal.read`` makes it."""

    def __init__(self, path: Path, form: Format, key: Record, rows: list[tuple[int, Record]]) -> None:
        """Wrap what was read."""
        self.path, self.form, self.key, self._rows = path, form, key, rows
        self._begun, self._outdated = True, False

    @classmethod
    def open(cls, path: Path, form: Format, key: Record) -> Journal:
        """Read a table; where there is none, one without rows, which nothing is written of yet.

        Raises:
            IncompatibleError: The table belongs to something else; the message says what differs.
            TableError: The file is no such table. It is left as it is.
        """
        if not _is_begun(path, form, _first_line(form, key)):
            journal = cls(path, form, key, [])
            journal._begun = False
            return journal
        journal = cls.read(path, form)
        differing = differences(journal.key, key)
        if differing and form.renewing.issuperset(name for name in key if journal.key[name] != key[name]):
            renewed = cls(path, form, key, [])
            renewed._begun, renewed._outdated = False, True
            if journal._rows:
                say(
                    f"{form.name} {path} is of something else: {'; '.join(differing)}; none of its rows hold, and they "
                    f"are measured again. The old ones are kept as {renewed._aside}"
                )
            return renewed
        if differing:
            raise IncompatibleError(
                f"{form.name} {path} belongs to something else: {'; '.join(differing)}",
                hint="such rows cannot be compared; keep these in another folder (--profiles, --output)",
            )
        return journal

    @classmethod
    def read(cls, path: Path, form: Format) -> Journal:
        """Read a table, whatever its key.

        Raises:
            IncompatibleError: It is of another version of the format.
            TableError: The file is no such table. It is left as it is.
        """
        first, *others = _lines(path, form) or [""]
        key = _read_key(first, path, form)
        rows = [(number, _read_object(line, path, number, form)) for number, line in enumerate(others, start=2)]
        return cls(path, form, key, rows)

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        """Every row with its line number."""
        return iter(self._rows)

    def append(self, record: Record) -> None:
        """Append a row; when this returns it is on disk.

        Raises:
            IncompatibleError: Another process began the table meanwhile, for something else.
        """
        if not self._begun:
            if self._outdated:
                self.path.rename(self._aside)
            Journal.open(self.path, self.form, self.key)
            self._begun = True
        files.append_line(self.path, _line(record), first=_first_line(self.form, self.key))

    @property
    def _aside(self) -> Path:
        """Where a table goes whose rows no longer hold."""
        return self.path.with_name(f"{self.path.stem}-{files.sha256(self.path)[:8]}{self.path.suffix}")

    def malformed(self, number: int, what: object) -> TableError:
        """The error for a row that its package cannot understand."""
        return _malformed(self.path, number, what, self.form)

    @property
    def sha256(self) -> str:
        """Hash of the file as it is now; before the first row, of nothing."""
        return files.sha256(self.path) if self._begun else hashlib.sha256().hexdigest()


def write_whole(path: Path, form: Format, key: Record, records: Iterable[Record]) -> None:
    """Write a whole table: after a kill the file is the old or the new one."""
    lines = [_first_line(form, key), *map(_line, records)]
    files.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def typed(record: Record, types: Types, also: tuple[str, ...] = ()) -> Record:
    """The fields of a record, each of its type, and no others.

    Raises:
        ValueError: They are not; the message names the field and goes on from "the line".
    """
    if unknown := sorted(record.keys() - types.keys() - set(also)):
        raise ValueError(f"has the unknown field {unknown[0]!r}")
    for name, allowed in types.items():
        if name not in record:
            raise ValueError(f"lacks the field {name!r}")
        if type(record[name]) not in allowed:  # not isinstance: True is no number here
            raise ValueError(f"has {record[name]!r} as {name}")
    return {name: record[name] for name in types}


def differences(there: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """What differs between two keys of the same fields, in words: ``threads: 1, here 2``."""
    return [f"{name}: {there[name]}, here {here[name]}" for name in there if there[name] != here[name]]


def _is_begun(path: Path, form: Format, first: str) -> bool:
    """Whether there is something to read; a file without one whole line counts only as far as it is not ours."""
    if not path.exists():
        return False
    content = _bytes(path, form)
    return b"\n" in content or not first.encode().startswith(content)


def _bytes(path: Path, form: Format) -> bytes:
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise TableError(f"{form.name} {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise TableError(f"{form.name} {path} {error}") from error


def _lines(path: Path, form: Format) -> list[str]:
    *lines, _torn = _bytes(path, form).split(b"\n")
    decoded = []
    for number, line in enumerate(lines, start=1):
        try:
            decoded.append(line.decode())
        except UnicodeDecodeError as error:
            raise _malformed(path, number, "is not text", form) from error
    return decoded


def _read_key(line: str, path: Path, form: Format) -> Record:
    record = _read_object(line, path, 1, form)
    if record.get("format") != form.tag:
        raise _malformed(path, 1, f"does not begin a {form.name}: it has no format {form.tag!r}", form)
    if record.get("version") != form.version:
        raise IncompatibleError(
            f"{form.name} {path} is of version {record.get('version')} of its format, this tool reads {form.version}",
            hint="use the release of trt_layermerge that wrote it, or measure again",
        )
    try:
        return typed(form.defaults | record, form.key, also=("format", "version"))
    except ValueError as error:
        raise _malformed(path, 1, error, form) from error


def _read_object(line: str, path: Path, number: int, form: Format) -> Record:
    try:
        record = files.parse_json(line)
    except ValueError as error:
        raise _malformed(path, number, error, form) from error
    if not isinstance(record, dict):
        raise _malformed(path, number, "is not a JSON object", form)
    return record


def _malformed(path: Path, number: int, what: object, form: Format) -> TableError:
    return TableError(f"{form.name} {path}, line {number}: the line {what}", hint=form.remedy)


def _first_line(form: Format, key: Record) -> str:
    return _line({"format": form.tag, "version": form.version} | key)


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False)
