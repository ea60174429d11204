"""The gate to code that is the user's: whatever it raises is one message that says what, and in which file and line.

That code may raise anything: an error, ``SystemExit`` from a library that parses arguments, a ``KeyboardInterrupt`` of
its own, a class that says nothing of itself. None of it may end the command in silence, or as a success. Only Ctrl-C
goes through, a SIGINT that really arrived while the code ran, and what the command line treats alike. What it sets for
the whole process is put back behind it, and said once.
"""

from __future__ import annotations

import os
import signal
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import FrameType, TracebackType
from typing import Any

from trt_layermerge.errors import InputError, LayerMergeError, Terminated, say
from trt_layermerge.modes import left_on, modes_now, put_back

_NOT_THE_USERS = (str(Path(__file__).parent), *set(sysconfig.get_paths().values()))
_LONGEST = 500
"""Characters of a message that are shown; one may hold a whole array."""


class user_code:  # noqa: N801  # a context manager, as those of contextlib
    """Run code of the user inside; there must be no ``yield`` of ours within.

    Args:
        what: What it was asked for, to begin the message with.
        kind: What to raise.
    """

    def __init__(self, what: str, kind: type[InputError]) -> None:
        self._what, self._kind = what, kind
        self._interrupted, self._handler = False, signal.getsignal(signal.SIGINT)

    def __enter__(self) -> None:
        """Listen for Ctrl-C, and note what is set for the whole process."""
        self._modes, self._on, self._process = modes_now(), left_on(), os.getpid()
        if callable(self._handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._listen)

    def _listen(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        if callable(self._handler):
            self._handler(number, frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise what is wrong in words.

        Raises:
            InputError: The code raised; of the given kind.
            KeyboardInterrupt: The user pressed Ctrl-C, or ended the process.
        """
        if os.getpid() != self._process:  # a fork, which must not do a second time what is done from here on
            os._exit(error is not None)
        changed = put_back(self._modes)
        if self._handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._handler)
        if error is None and left_on() > self._on:
            raise self._kind(f"{self._what}: it leaves a mode of torch on", hint=_IN_A_WITH)
        for name in changed:
            _say_once(name)
        if error is None or isinstance(error, Terminated):  # which a gate around this one knows it by
            return
        if self._interrupted:
            raise KeyboardInterrupt from error
        if not isinstance(error, LayerMergeError):
            raise self._kind(f"{self._what}: {_words(error)}{place_of(error)}") from error
        *_, (last, _) = walk_tb(error.__traceback__)
        if last.f_code.co_filename != __file__ and (place := place_of(error)):  # of ours, for the user's code
            raise self._kind(f"{error.message}{place}", hint=error.hint) from error


_IN_A_WITH = "use inference_mode() and its like in a with statement, which ends them"


@cache
def _say_once(name: str) -> None:
    say(f"code that is not ours has changed {name} for the whole process; that was put back")


_ENDING = ("_exit", "abort", "execv", "execve")
"""What in ``os`` ends a process at once, or puts another program in its place; the other ways to do so call these."""


@contextmanager
def ended_by_us_alone(*, ending: bool) -> Iterator[None]:
    """Make ``os._exit``, ``os.abort`` and ``os.exec...`` raise ``SystemExit`` in this process, not in its forks.

    Args:
        ending: Whether this process ends with the block. Then what runs at exit cannot change its exit code either.
    """
    process, real, code = os.getpid(), {name: getattr(os, name) for name in _ENDING}, list[int]()

    def instead(name: str) -> Callable[..., Any]:
        def end(*arguments: Any) -> Any:
            if os.getpid() != process:
                return real[name](*arguments)
            if code:
                real["_exit"](code[0])
            raise SystemExit(f"os.{name}({', '.join(map(repr, arguments[:2]))[:100]})")

        return end

    for name in _ENDING:
        setattr(os, name, instead(name))
    try:
        yield
        code.append(0)
    except SystemExit as stop:
        code.append(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
        raise
    finally:
        if not ending or not code:
            for name, function in real.items():
                setattr(os, name, function)


def _words(error: BaseException) -> str:
    """What an error says, however odd it is."""
    if isinstance(error, SystemExit):
        return f"it ends the process, with SystemExit: {error.code}"
    try:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
    except BaseException:  # its own __str__, which is the user's code too
        said = ""
    words = f"{type(error).__name__}: {said[:_LONGEST]}" if said else type(error).__name__
    return f"{words}; a process that it waits for, such as a worker that loads data, has ended" * _lost(error) or words


def _lost(error: BaseException) -> bool:
    """Whether it is of reading what another process held."""
    frames = walk_tb(error.__traceback__) if isinstance(error, OSError | EOFError) else ()
    return any(str(frame.f_globals.get("__name__")).startswith("multiprocessing.") for frame, _ in frames)


def place_of(error: BaseException) -> str:
    """Where the user's code came to an error: neither in this package nor in what is installed; empty if nowhere."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" ({error.filename}, line {error.lineno})"
    lines = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    own = [(file, line) for file, line in lines if file[:1] != "<" and not file.startswith(_NOT_THE_USERS)]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
