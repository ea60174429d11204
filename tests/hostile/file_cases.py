"""Files that are no files of their format, or hold what a format allows and sense does not."""

from __future__ import annotations

import gzip
import os
import re
import runpy
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.hostile.case import ASSETS, Hostile, Right, job

GOLDEN = ASSETS.parents[1] / "golden"
_PROFILE = (ASSETS.parents[1] / "latency" / "assets" / "profile-v1.jsonl").read_text()
_LATENCIES = "start,end,kernel,depthwise,latency_ms\n0,1,3,0,1.0\n1,2,3,0,1.0\n0,2,5,0,1.5\n"
_IMPORTANCES = "start,end,kernel,depthwise,importance\n0,1,3,0,0\n1,2,3,0,0\n0,2,5,0,-0.5\n"
_CONFIG = "alpha = 1.5\nbudget = 0.9\nepochs = 1\noutput = 'out'\n"


def _solved(latencies: Path) -> list[object]:
    (latencies.parent / "i.csv").write_text(_IMPORTANCES)
    return ["solve", "--latency", latencies, "--importance", latencies.parent / "i.csv", "--budget", "0.9", "--json"]


def _measured(table: Path) -> list[object]:
    """A table where a job has its own."""
    (table.parent / "out").mkdir()
    table.rename(table.parent / "out" / "importance.jsonl")
    return job(table.parent)


FORMATS: dict[str, tuple[str, str, Callable[[Path], list[object]]]] = {
    "configuration": ("c.toml", _CONFIG, lambda path: [*job(path.parent), "--config", path]),
    "recipe": ("r.toml", "epochs = 1\nlr = 0.1\n", lambda path: [*job(path.parent), "--recipe", path]),
    "profile": ("p.jsonl", _PROFILE, lambda path: ["compare", path, path, "--json"]),
    "profile of a merge": (
        "p.jsonl",
        _PROFILE,
        lambda path: ["profile", "merge", path, path, "--output", path.parent / "m"],
    ),
    "importance table": ("i.jsonl", (GOLDEN / "importance-v5.jsonl").read_text(), _measured),
    "manifest": ("m.json", '{"format": 1, "files": {}}', lambda path: ["verify", path, "--json"]),
    "latencies": ("l.csv", _LATENCIES, _solved),
    "report of the doctor": ("d.json", '{"version": 1}', lambda path: ["doctor", "--replay", path, "--json"]),
}
"""A file's name, what is valid, or nearly, and the command that reads it."""

_VALUES: tuple[Any, ...] = (
    *("[" * 5000, "{" * 5000, "9" * 5000, "-" + "9" * 400, "1e999", "NaN", '"\\ud800"', '"a\\u0000b"', "true"),
    *('"' + "x" * 100_000 + '"', "[]", "{}", "null", "0", "-1", "1e308", "9223372036854775808", '"\\u001b[2J"'),
)
"""What stands in place of a number, whatever the syntax."""


def _in_place_of_a_number(text: str, value: str) -> str:
    """The text with its last number replaced."""
    end = max(number for number, letter in enumerate(text) if letter.isdigit()) + 1
    begin = end
    while text[begin - 1] in "0123456789.":
        begin -= 1
    return text[:begin] + value + text[end:]


def _in_each_field(text: str) -> Iterator[tuple[str, str]]:
    """The text with each number of its last line, if that is JSON, replaced by others: what, and the text."""
    *before, last = text.strip().splitlines()
    if not last.startswith("{"):
        return
    for found, value in product(
        re.finditer(r"(?<=[ \[nx(])-?\d[\d.e-]*", last), ("0", "-1", "9223372036854775808", "1e300")
    ):
        line = last[: found.start()] + value + last[found.end() :]
        yield f"{value} at {found.start()} of its last line", "\n".join([*before, line, ""])


def _whole(text: str) -> dict[str, bytes]:
    data = text.encode()
    return {
        "empty": b"",
        "of NULs": bytes(1000),
        "in UTF-16": text.encode("utf-16"),
        "with a mark of its byte order": b"\xef\xbb\xbf" + data,
        "compressed": gzip.compress(data),
        "cut off": data[: len(data) // 2],
        "that is no text": data + b"\xff\xfe\n",
        "twice": data + data,
        "of one long line": b"a" * 3_000_000,
        "an ELF": b"\x7fELF" + bytes(64),
    }


def _no_file(path: Path, how: str) -> None:
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path)
    elif how == "device":
        path.symlink_to("/dev/zero")


def file_cases() -> Iterator[Hostile]:
    """All of them; what a file can do besides, such as a byte that is another, is ``tests/fuzz``'s."""
    for kind, (name, text, command) in FORMATS.items():
        for what, data in _whole(text).items():
            yield _file(f"{kind} {what}", name, data, command, Right.EITHER)
        for value in _VALUES:
            shown = value if len(value) < 25 else f"{value[:6]} x{len(value)}"
            data = _in_place_of_a_number(text, value).encode()
            yield _file(f"{kind} with {shown}", name, data, command, Right.EITHER)
        for what, changed in _in_each_field(text):
            yield _file(f"{kind} with {what}", name, changed.encode(), command, Right.EITHER)
        for how in ("folder", "pipe", "loop", "device", "nothing"):

            def read(folder: Path, name: str = name, how: str = how, command: Any = command) -> list[object]:
                _no_file(folder / name, how)
                arguments: list[object] = command(folder / name)
                return arguments

            if (kind, how) != ("importance table", "nothing"):  # which is how every job begins
                # A link to itself holds nothing, and a job writes its table in the place of it.
                right = Right.EITHER if (kind, how) == ("importance table", "loop") else Right.REFUSED
                yield Hostile(f"{kind} that is a {how}", read, right)


def _file(name: str, file: str, data: bytes, command: Callable[[Path], list[object]], right: Right) -> Hostile:
    def write(folder: Path) -> list[object]:
        (folder / file).write_bytes(data)
        return command(folder / file)

    return Hostile(name, write, right)


_NUMBERS = ("int64", "int8", "bool", "complex64", "float64", "float16", "bfloat16", "float8_e4m3fn")


def _states(state: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    first, *others = state
    for number in _NUMBERS:
        yield f"of {number}", {name: value.to(getattr(torch, number)) for name, value in state.items()}
    yield "without one", {name: state[name] for name in others}
    yield "with one more", {**state, "more": torch.zeros(3)}
    yield "none", {}
    for what, value in {
        "of another shape": torch.zeros(2, 2),
        "empty": torch.zeros(0),
        "not a number": state[first] * float("nan"),
        "infinite": state[first] + float("inf"),
        "huge": state[first] * 1e38 * 10,
        "denormal": state[first] * 1e-42,
        "of zeros": state[first] * 0,
    }.items():
        yield f"one {what}", {**state, first: value.contiguous()}


def _odd_states(state: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What safetensors cannot hold."""
    first = next(iter(state))
    one = state[first]
    yield "on meta", {name: value.to("meta") for name, value in state.items()}
    yield "sparse", {**state, first: one.to_sparse()}
    yield "expanded", {**state, first: one[:1].expand(10**12, *one.shape[1:])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield "quantized", {**state, first: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8)}
    yield from {
        "a list": [one],
        "a number": 3,
        "names of numbers": {3: one},
        "nested": {"a": {"b": {"c": state}}},
    }.items()
    yield "a module", torch.nn.Conv2d(1, 1, 1)


def weight_cases() -> Iterator[Hostile]:
    """Checkpoints of the usual model."""
    state = runpy.run_path(str(ASSETS / "model.py"))["model"]().state_dict()
    plain = {name: value for name, value in state.items() if value.is_floating_point()}
    for (what, odd), suffix in product(_states(plain), ("pth", "safetensors")):
        yield _weights(what, odd, suffix)
    for what, odd in _odd_states(plain):
        yield _weights(what, odd, "pth")


def _weights(what: str, state: Any, suffix: str) -> Hostile:
    def write(folder: Path) -> list[object]:
        path = folder / f"w.{suffix}"
        torch.save(state, path) if suffix == "pth" else save_file(state, path)
        return job(folder, "--weights", path)

    return Hostile(f"{suffix} {what}", write, Right.EITHER)
