from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Client
from pathlib import Path
from typing import NoReturn

import pytest

from trt_layermerge.cli.termination import terminated_as_interrupted
from trt_layermerge.errors import ModelError, TaskError, UsageError
from trt_layermerge.usercode import ended_by_us_alone, user_code


class Dumb(BaseException):
    def __str__(self) -> str:
        raise SystemExit(0)


def deep(level: int = 0) -> int:
    return deep(level + 1) + 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(0), "it ends the process, with SystemExit: 0"),
        (SystemExit(), "it ends the process, with SystemExit: None"),
        (GeneratorExit(), "GeneratorExit"),
        (KeyboardInterrupt("mine"), "KeyboardInterrupt: mine"),
        (MemoryError(), "MemoryError"),
        (StopIteration(3), "StopIteration: 3"),
        (BaseException("odd"), "BaseException: odd"),
        (BaseExceptionGroup("two", [SystemExit(0), ValueError()]), r"BaseExceptionGroup: two \(2 sub-exceptions\)"),
        (Dumb(), "Dumb"),
        (ValueError("long" * 10_000), "ValueError: (long){125}"),
    ],
)
def test_whatever_is_raised_is_one_message_with_its_place(error: BaseException, words: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    match = rf"^it: {words} \({__file__}, line \d+\)$"
    with pytest.raises(TaskError, match=match) as caught, user_code("it", TaskError):
        raise error
    assert caught.value.exit_code == 3 and caught.value.__cause__ is error
    assert signal.getsignal(signal.SIGINT) is before


def test_a_worker_that_has_ended_is_told_of(tmp_path: Path) -> None:
    with (
        pytest.raises(TaskError, match=r"it: FileNotFoundError: .*; a process .* has ended"),
        user_code("it", TaskError),
    ):
        Client(str(tmp_path / "nobody"))  # as tensors are fetched from it


def test_recursion_without_end_is_told() -> None:
    with pytest.raises(ModelError, match=rf"it: RecursionError: .*{__file__}"), user_code("it", ModelError):
        deep()


def test_an_error_of_ours_is_told_with_the_users_line() -> None:
    with pytest.raises(TaskError) as caught, user_code("outer", ModelError), user_code("inner", TaskError):
        raise UsageError("no", hint="do")
    assert re.fullmatch(rf"no \({__file__}, line \d+\)\n  hint: do", str(caught.value))


def test_ctrl_c_goes_through_whatever_the_code_makes_of_it() -> None:
    with pytest.raises(KeyboardInterrupt), user_code("it", TaskError):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), user_code("it", TaskError):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("a worker was killed") from None


def test_an_end_goes_through_every_gate_where_ctrl_c_is_ignored() -> None:
    """As a job that a script's shell has put in the background is ended; a data set's code runs behind two gates."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outer, inner = user_code("outer", TaskError), user_code("inner", TaskError)
        with terminated_as_interrupted(), pytest.raises(KeyboardInterrupt), outer, inner:
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_handler_that_the_code_sets_ends_with_it() -> None:
    before = signal.getsignal(signal.SIGINT)
    with user_code("it", TaskError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is before


def test_it_works_in_other_threads() -> None:
    caught: list[BaseException] = []

    def ends() -> None:
        try:
            with user_code("it", TaskError):
                fail()
        except TaskError as error:
            caught.append(error)

    def fail() -> NoReturn:
        raise SystemExit(0)

    thread = threading.Thread(target=ends)
    thread.start()
    thread.join()
    assert len(caught) == 1


PROGRAM = """
import atexit, os, sys
from trt_layermerge.usercode import ended_by_us_alone
with ended_by_us_alone(ending=True):
    if "{when}" == "at exit":
        atexit.register(lambda: os._exit(0))
        sys.exit(3)
    try:
        os.{call}
    except SystemExit as stop:
        print(stop.code)
        sys.exit(3)
"""


@pytest.mark.parametrize(
    "call",
    ["_exit(0)", "abort()", "execv('/bin/true', ['true'])", "execlp('true', 'true')", "execvpe('true', ['true'], {})"],
)
@pytest.mark.parametrize("when", ["now", "at exit"])
def test_nothing_ends_the_process_as_a_success(call: str, when: str) -> None:
    program = PROGRAM.replace("{call}", call).replace("{when}", when)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 3 and ran.stderr == ""
    assert when == "at exit" or ran.stdout.startswith("os.")


def test_forks_end_as_they_like_and_what_was_there_comes_back() -> None:
    before = os._exit, os.execv, os.execve
    with ended_by_us_alone(ending=False):
        if (child := os.fork()) == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        said = r"it ends the process, with SystemExit: os\._exit\(0\)"
        with pytest.raises(TaskError, match=said), user_code("it", TaskError):
            os._exit(0)
    assert (os._exit, os.execv, os.execve) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_of_the_users_code_ends_with_it() -> None:
    with user_code("it", TaskError):
        child = os.fork()
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        if not child:
            os._exit(7)  # it has come through
