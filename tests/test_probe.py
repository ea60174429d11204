from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from trt_layermerge.errors import ModelError, UsageError
from trt_layermerge.probe import probe


def fine(path: str) -> object:
    print("a library speaks")
    assert Path(path).is_file()
    return object()


def refuses(path: str) -> None:
    raise UsageError(f"{path} is no good", hint="do better")


def raises(path: str) -> None:
    raise ZeroDivisionError(f"of {path}\n" * 1000)


def crashes(path: str) -> None:
    ctypes.string_at(0)


def is_killed(path: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exits(path: str) -> None:
    os._exit(0)


def fills_memory(path: str) -> None:
    held = [bytearray(1 << 28)]
    for _ in range(100):
        held.append(bytearray(1 << 28))


def computes(path: str) -> None:
    while True:
        pass


def hangs(path: str) -> None:
    time.sleep(600)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def test_what_goes_well_says_nothing(file: Path) -> None:
    probe(fine, file)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (refuses, "file is no good\n  hint: do better"),
        (raises, "file cannot be read: what reads it fails\n  hint: the file is damaged"),
        (crashes, r"file cannot be read: in a process of its own, reading it crashed \(SIGSEGV\)\n  hint: "),
        (is_killed, r"reading it crashed \(SIGKILL\)"),
        (exits, "reading it ended with exit code 0"),
        (fills_memory, "file cannot be read: it takes more than 4096 MiB of memory\n  hint: "),
    ],
)
def test_whatever_happens_there_is_one_message_here(file: Path, function: object, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        probe(function, file)  # type: ignore[arg-type]
    assert caught.value.exit_code == 3 and len(caught.value.message) < 700
    assert file.read_bytes() == b"content"


@pytest.mark.skipif(not hasattr(signal, "SIGXCPU"), reason="this system does not limit processor time")
def test_what_computes_for_ever_is_ended(file: Path) -> None:
    with pytest.raises(ModelError, match="it took more than 1 s of processor time"):
        probe(computes, file, seconds=1.0)


def test_what_never_ends_is_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little it computes."""
    monkeypatch.setattr("trt_layermerge.probe.PATIENCE", 1)
    with pytest.raises(ModelError, match="it took more than 1 s"):
        probe(hangs, file, seconds=1.0)
