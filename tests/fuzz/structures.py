"""Changes that keep a file's syntax and break its sense: numbers at their ends, other types, nesting, hostile text."""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
import zipfile
from dataclasses import dataclass
from random import Random
from typing import Any

import onnx
from google.protobuf.message import Message

from tests.fuzz.mutation import mutate

TEXTS = (
    *("", " ", "a" * 10_000, "../../etc/passwd", "/etc/passwd", "/dev/zero", "..", ".", "a\0b", "\x1b[31mred", "\r\nx"),
    *(
        "%s%n{0}",
        "{}",
        "'\"`$(id)",
        "<script>",
        "\u202e\u0000",
        "\ud800",
        "\U0001f600",
        "\u0663",
        "\u00b2",
        "-0",
        "nan",
    ),
    *("inf", "1e999", "0x10", "1_000", "None", "true", "class", "__class__", "=1+1", "Infinity", "9" * 400),
)
NUMBERS = (
    *("0", "-1", "1", "2", "3", "255", "65536", "2147483647", "2147483648", "-2147483649", "4294967296"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e99", "1e100"),
    *("1e308", "1e309", "-1e308", "5e-324", "-0.0", "0.5", "1.5", "NaN", "Infinity", "-Infinity", "nan", "inf"),
    *("9" * 400, "9" * 5000, "1e-400", "0.1", "7" * 19),
)


@dataclass(frozen=True)
class _Raw:
    """What is written as it is."""

    text: str


class _Pairs(list[Any]):
    """A table in its order, with whatever names, twice too."""


Path = list[tuple[Any, int]]


def _pairs(value: Any) -> Any:
    if isinstance(value, dict):
        return _Pairs([name, _pairs(inner)] for name, inner in value.items())
    return [_pairs(inner) for inner in value] if isinstance(value, list) else value


def _written(value: Any, equals: str) -> str:
    if isinstance(value, _Raw):
        return value.text
    if isinstance(value, _Pairs):
        inside = ", ".join(f"{json.dumps(name)}{equals}{_written(inner, equals)}" for name, inner in value)
        return "{" + inside + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(inner, equals) for inner in value) + "]"
    return json.dumps(value, default=str)


def _places(value: Any) -> list[tuple[Any, int]]:
    """Every list that holds a value, with its index: of a table, the list of a name and its value."""
    found, stack = [], [value]
    while stack:
        one = stack.pop()
        for index, inner in enumerate(one):
            if isinstance(inner, list):
                stack.append(inner)
            if not isinstance(one, _Pairs) or not isinstance(inner, list):
                found.append((one, index))
            if isinstance(one, _Pairs):
                found.append((inner, 1))
    return found


def _hostile(rng: Random, old: Any) -> Any:
    depth = rng.choice([5, 70, 3000])
    nested = "[" * depth + "]" * depth
    choices: list[Any] = [_Raw(rng.choice(NUMBERS)), _Raw(rng.choice(NUMBERS)), rng.choice(TEXTS), _Raw(nested)]
    choices += [[], _Pairs(), [old] * 2, _Pairs([["x", old]]), True, str(old), rng.choice([_Raw("null"), False])]
    if isinstance(old, str) and old:
        at = rng.randrange(len(old))
        choices += [old[:at] + rng.choice(TEXTS) + old[at + rng.randrange(3) :]] * 5
        digits = [index for index, letter in enumerate(old) if letter.isdigit()]
        if digits:
            at = rng.choice(digits)
            choices += [old[:at] + rng.choice(NUMBERS) + old[at + 1 :]] * 5
    if isinstance(old, (int, float)) and not isinstance(old, bool):
        choices += [_Raw(str(-old)), _Raw(f"{old}0"), _Raw(f"{old}.0"), old + 1, _Raw(rng.choice(NUMBERS))]
    return rng.choice(choices)


def _change(rng: Random, value: Any) -> Any:
    """A value of pairs and lists, with one change."""
    if not isinstance(value, list) or rng.random() < 0.02:
        return _hostile(rng, value)
    holders = [one for one in [value, *(h[i] for h, i in _places(value))] if isinstance(one, list)]
    kind, places = rng.random(), _places(value)
    if kind < 0.6 and places:
        holder, index = rng.choice(places)
        holder[index] = _hostile(rng, holder[index])
        return value
    holder = rng.choice(holders)
    if holder and kind < 0.75:
        del holder[rng.randrange(len(holder))]
    elif holder and kind < 0.85:
        holder.append(rng.choice(holder))  # of a table, a name that is there twice
    elif holder and kind < 0.9 and isinstance(holder, _Pairs):
        rng.choice(holder)[0] = rng.choice(TEXTS)
    elif holder and kind < 0.95:
        holder.extend(list(holder) * rng.choice([1, 50]))
    else:
        holder.insert(0, [rng.choice(TEXTS), 1] if isinstance(holder, _Pairs) else _hostile(rng, 1))
    return value


def json_value(rng: Random, data: bytes) -> bytes:
    """JSON."""
    return _written(_change(rng, _pairs(json.loads(data))), ": ").encode("utf-8", "surrogatepass")


def indented_json(rng: Random, data: bytes) -> bytes:
    """JSON as our files have it: indented, which a checksum is found by."""
    changed = json_value(rng, data)
    try:
        return (json.dumps(json.loads(changed), indent=2) + "\n").encode()
    except (ValueError, RecursionError):
        return changed


def json_lines(rng: Random, data: bytes) -> bytes:
    """One line of JSON among others."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json_value(rng, lines[at])
    return b"\n".join(lines) + b"\n"


def toml_table(rng: Random, data: bytes) -> bytes:
    """TOML, the tables of which are written inline."""
    changed = _change(rng, _pairs(tomllib.loads(data.decode())))
    lines = [f"{json.dumps(name)} = {_written(inner, ' = ')}" for name, inner in changed]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def csv_table(rng: Random, data: bytes) -> bytes:
    """CSV: a cell, a row or a column."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    row = rng.choice(rows)
    kind, at = rng.random(), rng.randrange(len(row))
    if kind < 0.7:
        row[at] = rng.choice([*NUMBERS, *NUMBERS, *TEXTS, rng.choice(rng.choice(rows))])
    elif kind < 0.8:
        del row[at]
    elif kind < 0.9:
        rows.insert(rng.randrange(len(rows)), list(row))
    else:
        for other in rows:
            other.insert(at, other[rng.randrange(len(other))])
    text = io.StringIO()
    csv.writer(text, lineterminator=rng.choice(["\n", "\n", "\r\n"])).writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def onnx_model(rng: Random, data: bytes) -> bytes:
    """A message somewhere in an ONNX model."""
    model = onnx.load_from_string(data)
    message: Message = model
    while True:
        there = [field for field, _ in message.ListFields()]
        inner = [field for field in there if field.cpp_type == field.CPPTYPE_MESSAGE]
        if not inner or rng.random() < 0.15:
            break
        field = rng.choice(inner)
        value = getattr(message, field.name)
        message = rng.choice(value) if field.is_repeated else value
    _change_message(rng, message)
    return model.SerializeToString()


def _change_message(rng: Random, message: Message) -> None:
    fields = [field for field, _ in message.ListFields()]
    if not fields or rng.random() < 0.2:
        fields = list(message.DESCRIPTOR.fields)
    field = rng.choice(fields)
    if not field.is_repeated:
        if rng.random() < 0.2 or field.cpp_type == field.CPPTYPE_MESSAGE:
            message.ClearField(field.name)
        else:
            setattr(message, field.name, _scalar(rng, field, getattr(message, field.name)))
        return
    values = getattr(message, field.name)
    kind = rng.random()
    if values and kind < 0.3:
        del values[rng.randrange(len(values))]
    elif values and kind < 0.5:
        values.extend([values[rng.randrange(len(values))]] * rng.choice([1, 1, 20]))
    elif field.cpp_type == field.CPPTYPE_MESSAGE:
        values.add()
    elif values and kind < 0.9:
        values[rng.randrange(len(values))] = _scalar(rng, field, values[0])
    else:
        values.append(_scalar(rng, field, None))


def _scalar(rng: Random, field: Any, old: Any) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_BYTES:
        data = old or b"x"
        return mutate(rng.randrange(1 << 30), "bytes", [data], None)
    if field.cpp_type == field.CPPTYPE_STRING:
        names = ("Conv", "Relu", "Add", "Reshape", "Loop", "If", "Identity", "BatchNormalization", "pads", "group", "x")
        return rng.choice([*TEXTS, *names, *names]).encode("utf-8", "replace").decode()
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice([0.0, -1.0, 1e38, float("inf"), float("nan")])
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice([*field.enum_type.values_by_number, 99, -1])
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return rng.choice([0, 1, 7, (1 << bits) - 1])
    return rng.choice(
        [0, -1, 1, 2, 3, 5, 7, 13, 17, 1000, 1 << 20, (1 << bits - 1) - 1, -(1 << bits - 1), (old or 0) + 1]
    )


def safetensors_file(rng: Random, data: bytes) -> bytes:
    """The header of a safetensors file, and its length with it."""
    size = int.from_bytes(data[:8], "little")
    header = json_value(rng, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def zip_archive(rng: Random, data: bytes) -> bytes:
    """A member of a zip archive, as torch writes state dicts; checksums hold again."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    chosen = rng.choice(
        [name for name in source.namelist()] + [n for n in source.namelist() if n.endswith("data.pkl")] * 3
    )
    with zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(
                name, mutate(rng.randrange(1 << 30), "bytes", [content], None) if name == chosen else content
            )
    return target.getvalue()


def checkpoint_file(rng: Random, data: bytes) -> bytes:
    """What a checkpoint says of itself, which is JSON within its header; or the header."""
    if rng.random() < 0.3:
        return safetensors_file(rng, data)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    name = rng.choice(["identity", "position"])
    header["__metadata__"][name] = json_value(rng, header["__metadata__"][name].encode()).decode("utf-8", "replace")
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def npy_file(rng: Random, data: bytes) -> bytes:
    """The header of an array of numpy's: its type, its order, its shape."""
    size = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + size].decode("latin-1").strip()
    found = re.search(rng.choice([r"'<?[fiuO|b]\d'", r"\d+(?=,)", "True|False", r"\(.*\)"]), header)
    if found is not None:
        other = rng.choice(
            [*NUMBERS, *TEXTS, "'|O'", "'<f8'", "'|u1'", "'<U7'", "'<i8'", "'>f2'", "'<c8'", "(3,)", "()"]
        )
        header = header[: found.start()] + other + header[found.end() :]
    text = (header + "\n").encode("latin-1", "replace")
    return data[:8] + (len(text) % 65536).to_bytes(2, "little") + text + data[10 + size :]
