from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trt_layermerge import files
from trt_layermerge.errors import InputError

LINES = st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20), max_size=5)
IN_A_FOLDER = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def python(code: str, *args: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)])


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_inside_leaves_what_was_there(tmp_path: Path, before: bytes | None, error: type) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(error), files.replacing(path) as neighbour:
        neighbour.write_bytes(b"half of the n")
        raise error
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("step", ["fsync", "open", "replace"])
def test_a_failure_of_the_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(tmp_path / "file", b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_a_kill_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    code = """
import os, signal, sys
from pathlib import Path
from trt_layermerge import files
with files.replacing(Path(sys.argv[1])) as neighbour:
    neighbour.write_bytes(b"half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert python(code, tmp_path / "file").wait() == -signal.SIGKILL
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path(os.devnull)):
        before = path.lstat()
        with pytest.raises(InputError, match="a device, a pipe or a socket"):
            files.write_bytes(path, b"new")
        assert path.lstat() == before


def test_a_whole_file_replaces_and_may_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    files.write_bytes(path, b"old")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o644
    assert files.sha256(path) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


def test_json_is_for_people_and_has_numbers_only(tmp_path: Path) -> None:
    files.write_json(tmp_path / "j", {"b": 1, "a": [2.5]})
    assert (tmp_path / "j").read_text() == '{\n  "b": 1,\n  "a": [\n    2.5\n  ]\n}\n'
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "j", float("nan"))
    assert (tmp_path / "j").read_text().startswith("{")


@IN_A_FOLDER
@given(lines=LINES, line=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])), data=st.data())
def test_appending_keeps_whole_lines_and_cuts_a_torn_one(
    tmp_path: Path, lines: list[str], line: str, data: st.DataObject
) -> None:
    whole = "".join(f"{each}\n" for each in lines).encode()
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    kept = torn[: torn.rfind(b"\n") + 1]
    (tmp_path / "log").write_bytes(torn)
    files.append_line(tmp_path / "log", line, first="first")
    assert (tmp_path / "log").read_bytes() == (kept or b"first\n") + line.encode() + b"\n"


def test_a_torn_line_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"first\n" + b"x" * 10_000)
    files.append_line(tmp_path / "log", "second", first="first")
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"


def test_many_may_append_at_once(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from trt_layermerge import files
for number in range(40):
    files.append_line(Path(sys.argv[1]), f"{sys.argv[2]} {number} " + "x" * 5000, first="first")
"""
    (tmp_path / "log").write_bytes(b"torn")
    writers = [python(code, tmp_path / "log", name) for name in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    first, *lines = (tmp_path / "log").read_text().splitlines()
    assert first == "first" and {len(line.split()[2]) for line in lines} == {5000}
    told = [tuple(map(int, line.split()[:2])) for line in lines]
    assert sorted(told) == [(name, number) for name in range(4) for number in range(40)]


def test_a_folder_that_cannot_be_made_is_refused_and_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(InputError, match="file is not a folder"):
            files.require_writable(folder)
    files.require_writable(tmp_path / "not" / "yet")
    files.require_writable(Path("relative"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, whom containers run as, may write anywhere
    with pytest.raises(InputError, match="no permission"):
        files.require_writable(tmp_path / "x")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        files.write_bytes(tmp_path / "whole", b"")
        files.append_line(tmp_path / "lines", "a", first="b")
    finally:
        os.umask(before)
    for name in ("whole", "lines"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


DEEP = 100_000
FOREIGN_JSON = {
    "deep lists": ("[" * DEEP, "is nested too deeply"),
    "deep objects": ('{"a":' * 200 + "1" + "}" * 200, "is nested too deeply"),
    "lists below Python's limit": ("[" * 70 + "]" * 70, "is nested too deeply"),
    "5000 digits": ("9" * 5000, "is not JSON: .*digits"),
    "no float": ('{"a": [1' + "0" * 400 + "]}", "has a number beyond any measure"),
    "infinite": ("1e999", "is not JSON: 1e999 is not a number"),
    "large": ("[[1e200]]", "has a number beyond any measure"),
    "constant": ('{"a": NaN}', "is not JSON: NaN is not a number"),
    "NUL": ('{"a": "x\\u0000"}', r"has a NUL in 'x\\x00'"),
    "NUL in a key": ('{"x\\u0000": 1}', "has a NUL"),
    "half a surrogate": ('["\\ud800"]', "has a character that is none in"),
    "cut off": ('{"a": ', "is not JSON"),
}
FOREIGN_TOML = {
    "deep lists": ("a = " + "[" * 3000, "is nested too deeply"),
    "deep tables": (".".join(["a"] * 300) + " = 1", "is nested too deeply"),
    "5000 digits": ("a = " + "9" * 5000, "is not TOML: .*digits"),
    "hexadecimal digits": ("a = 0x" + "f" * 5000, "has a number beyond any measure"),
    "NUL": ('task = "x\\u0000"', "has a NUL"),
    "no TOML": ("a = ", "is not TOML"),
}


@pytest.mark.parametrize("name", FOREIGN_JSON)
def test_json_that_nobody_means_well_with_is_one_error(name: str) -> None:
    text, words = FOREIGN_JSON[name]
    with pytest.raises(ValueError, match=words):
        files.parse_json(text.encode())


@pytest.mark.parametrize("name", FOREIGN_TOML)
def test_toml_that_nobody_means_well_with_is_one_error(name: str) -> None:
    text, words = FOREIGN_TOML[name]
    with pytest.raises(ValueError, match=words):
        files.parse_toml(text.encode())


@pytest.mark.parametrize("parse", [files.parse_json, files.parse_toml])
def test_bytes_that_are_no_text_are_one_error(parse: Callable[[bytes], Any]) -> None:
    with pytest.raises(ValueError, match=r"not text in UTF-8: .* at byte 1"):
        parse(b"a\xff")


def test_a_pipe_of_a_shell_is_read_and_no_other_wherever_it_lies(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"content")
    os.close(writing)
    assert files.read_bytes(Path(f"/dev/fd/{reading}")) == b"content"
    os.close(reading)
    folders = [tmp_path, *filter(Path.is_dir, [Path("/dev/shm")])]
    for folder in folders:
        os.mkfifo(pipe := folder / f"pipe-{os.getpid()}")
        with pytest.raises(ValueError, match="is a pipe that nobody may ever write to"):
            files.read_bytes(pipe)
        pipe.unlink()


def test_files_are_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "file", most=5) == b"12345"
    with pytest.raises(ValueError, match="is larger than"):
        files.read_bytes(tmp_path / "file", most=4)
    with pytest.raises(ValueError, match="is larger than"):
        files.read_bytes(Path("/dev/zero"), most=4)  # which says that it is of size 0
    with pytest.raises(ValueError, match="is no path"):
        files.read_bytes(Path("a\0b"))


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(value=st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64) | TEXTS, st.lists, max_leaves=9))
def test_what_we_write_we_read(value: Any) -> None:
    assert files.parse_json(json.dumps(value)) == value


def test_what_a_kill_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from trt_layermerge import files
with files.replacing(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "file.json"
    python(code, path).wait()
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".file.json").write_bytes(b"the user's")
    with files.replacing(path) as outer:
        outer.write_bytes(b"outer")
        files.write_bytes(path, b"inner")
        assert path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer"
    assert sorted(one.name for one in tmp_path.iterdir()) == [".file.json", "file.json"]
