from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trt_layermerge import files, locks
from trt_layermerge.errors import Caution, InputError

ENTER = "import sys, os, signal; from pathlib import Path; from trt_layermerge.locks import exclusive\n"
HOLD = ENTER + "with exclusive(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read(1)"
WAIT = ENTER + "with exclusive(Path(sys.argv[1]), wait=True): print('in')"


def python(code: str, *args: object) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], text=True, **pipes)  # type: ignore[call-overload]


def test_a_folder_takes_one_process_and_says_who_is_in_it(tmp_path: Path) -> None:
    with python(HOLD, tmp_path / "job") as other:
        assert other.stdout is not None and other.stdout.readline() == "in\n"
        with (
            pytest.raises(InputError, match=rf"another process, {other.pid} \(.*exclusive"),
            locks.exclusive(tmp_path / "job"),
        ):
            pass
        other.communicate("x")
    with locks.exclusive(tmp_path / "job"):
        pass


def test_who_waits_says_for_whom(tmp_path: Path) -> None:
    with locks.exclusive(tmp_path):
        waiting = python(WAIT, tmp_path)
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert f"waiting for another process, {os.getpid()} (" in said and waiting.poll() is None
    assert waiting.communicate()[0] == "in\n"


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    killed = python(ENTER + "with exclusive(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)", tmp_path)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    with locks.exclusive(tmp_path):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_served(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(Caution, match="has no locks"), locks.exclusive(tmp_path):
        pass
    with pytest.warns(Caution, match="has no locks"):
        files.append_line(tmp_path / "rows", "a", first="b")
        files.write_bytes(tmp_path / "whole", b"new")
    assert (tmp_path / "rows").read_text() == "b\na\n" and (tmp_path / "whole").read_bytes() == b"new"


def test_another_failure_of_a_lock_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), locks.exclusive(tmp_path):
        pass
