"""Processes of our own: how they are started, and that none of them outlives the one that started it.

A process that is killed cannot end what it has started. On Linux the kernel does it, whatever the other one is busy
with; elsewhere a thread in there looks every second, which waits for native code that lets no other thread run.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

_PARENT_DEATH_SIGNAL = 1
"""Linux's ``PR_SET_PDEATHSIG``. For the kernel the parent is the thread that starts the process."""


def child_command(module: str, *args: str) -> list[str]:
    """The command that runs a module as ``python -m`` does, in a process that ends with this one, in whatever way.

    It is to be started by a thread that lives as long, and in the environment of ``child_environment``.
    """
    return [sys.executable, "-P", "-m", __name__, str(os.getpid()), module, *args]


def child_environment() -> dict[str, str]:
    """The environment of a process that imports from where this one does."""
    own = str(Path(__file__).parents[1])  # this very package, however it was found
    paths = [path or os.getcwd() for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths if own in paths else [own, *paths])}


def ending(code: int) -> str:
    """How a process ended, by its exit code: words that go on from what it was."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"crashed ({signal.Signals(-code).name})"
    except ValueError:
        return f"crashed (signal {-code})"


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _main() -> None:
    parent, module, *args = sys.argv[1:]
    _end_with(int(parent))
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
