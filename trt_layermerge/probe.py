"""The gate for files that others wrote and that native libraries read: the first time, in a process of its own.

A malformed file may crash such a library, fill the memory or never end. There that costs one process, which is limited
in memory and time; here it is one message. What went well there is done again here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from trt_layermerge.children import child_command, child_environment, ending
from trt_layermerge.errors import InputError, LayerMergeError, ModelError, said

_LOG = logging.getLogger(__name__)

MEMORY, MEMORY_PER_BYTE = 4 << 30, 8
"""Bytes that the process may take beyond what its libraries take, and those for each byte of the file."""

SECONDS, BYTES_PER_SECOND = 60.0, 20e6
"""Of processor time, and of the file that it takes a second more for."""

PATIENCE = 10
"""So many times as long it may take beside other work, which is no fault of the file's."""

_OUT_OF_TIME = -signal.SIGXCPU if hasattr(signal, "SIGXCPU") else None
"""Exit code of a process that has computed for longer than it may, where a system limits that."""

DAMAGED = "the file is damaged, or no exporter has written it; export the model again"
"""What to do about a model's file that cannot be read."""


def probe(function: Callable[[str], object], path: Path, seconds: float = SECONDS) -> None:
    """Call a function of a module with a path, elsewhere.

    Args:
        function: A public function; what it returns is of no interest.
        path: The file.
        seconds: Of processor time that it may take, if the file is small.

    Raises:
        ModelError: It raises, crashes, or takes too much time or memory.
    """
    size = path.stat().st_size
    seconds = max(1, round(seconds + size / BYTES_PER_SECOND))
    called = (function.__module__, function.__name__, str(path), str(MEMORY + MEMORY_PER_BYTE * size), str(seconds))
    alone = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONFAULTHANDLER": ""}
    try:
        ran = subprocess.run(
            child_command(__name__, *called),
            env={**child_environment(), **alone},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(path, f"it took more than {error.timeout:.0f} s") from error
    if ran.returncode == _OUT_OF_TIME:
        raise _refused(path, f"it took more than {seconds} s of processor time")
    answer = _answer(ran.stdout)
    if answer is None:
        raise _refused(path, f"reading it {ending(ran.returncode)}")
    if "message" in answer:
        if answer.get("cause"):
            _LOG.debug("%s: %s", path, answer["cause"])
        raise ModelError(answer["message"], hint=answer["hint"])


def _refused(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} cannot be read: in a process of its own, {why}",
        hint=DAMAGED,
    )


def _answer(said: bytes) -> dict[str, Any] | None:
    """What the process says at last; libraries may have written before."""
    try:
        answer = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _limit(memory: int) -> None:
    try:
        import resource  # which not every system has
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return
    _lower(resource.RLIMIT_AS, taken + memory)


def _limit_time(seconds: int) -> None:
    with contextlib.suppress(ImportError):
        import resource

        spent = math.ceil(time.process_time())  # on loading libraries
        _lower(resource.RLIMIT_CPU, spent + seconds)


def _lower(limit: int, wanted: int) -> None:
    """Limit a resource of this process, to no more than somebody has before."""
    import resource

    _, most = resource.getrlimit(limit)
    resource.setrlimit(limit, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def _outcome(call: Callable[[str], object], path: str, memory: int) -> dict[str, str | None]:
    try:
        call(path)
    except (InputError, LayerMergeError) as error:
        return {"message": error.message, "hint": error.hint}
    except MemoryError:
        return {"message": f"{path} cannot be read: it takes more than {memory >> 20} MiB of memory", "hint": DAMAGED}
    except Exception as error:  # of the libraries' many own kinds
        cause = f"{type(error).__name__}: {said(error)}"
        return {"message": f"{path} cannot be read: what reads it fails", "hint": DAMAGED, "cause": cause}
    return {}


def _main() -> None:
    module, function, path, memory, seconds = sys.argv[1:]
    call = getattr(import_module(module), function)
    _limit(int(memory))
    _limit_time(int(seconds))
    print(json.dumps(_outcome(call, path, int(memory))), flush=True)
    os._exit(0)  # threads of libraries may hang in a process that is out of memory


if __name__ == "__main__":
    _main()
