"""Building in a process of its own: a crash, an exhausted memory or a builder that hangs loses one engine and no more.

The process runs ``build_worker.py``. It gets the request as JSON on its standard input and writes the outcome, as JSON
too, to a file that it is told. Nothing here imports a builder library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trt_layermerge.children import child_command, child_environment, ending
from trt_layermerge.errors import (
    IncompatibleError,
    InputError,
    LayerMergeError,
    ModelError,
    RuntimeNotAvailableError,
)

if TYPE_CHECKING:  # it imports onnx, which the worker does without
    from trt_layermerge.runtimes.base import Shape

_LAST_MESSAGES = 10
_LAST_BYTES = 16384
_RAISED = (ModelError, InputError, IncompatibleError, RuntimeNotAvailableError)
_ERRORS: dict[str, type[LayerMergeError]] = {error.__name__: error for error in _RAISED}


@dataclass(frozen=True)
class BuildRequest:
    """What to build, and how.

    Attributes:
        library: The module that builds.
        model: ONNX file.
        plan: Where the serialised engine goes.
        shapes: Smallest, most usual and largest shape of each input; equal where it is fixed.
        workspace_bytes: Most memory that a tactic may use beside weights and activations; ``None`` for no limit.
        optimization_level: 0 to 5; ``None`` for the library's default.
        tf32: Whether float32 convolutions may round their inputs to TensorFloat-32, where a device can (SM80 on).
        timing_cache: File of measured tactics, shared with other builds; ``tensorrt`` only.
        any_format: Inputs and outputs may lie in memory in whatever format suits the network, so that no reformat
            stands where it begins and ends.
        targets: Compute capabilities to compile for, such as ``("sm75",)``; ``tensorrt_rtx`` only.
        replayed: SHA-256 of the timing cache, where tactics are chosen by it and by nothing else; ``None`` where a
            build adds to it.
        route: The compiler's knobs that differ from their defaults.
    """

    library: str
    model: Path
    plan: Path
    shapes: Mapping[str, tuple[Shape, Shape, Shape]]
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    timing_cache: Path | None = None
    any_format: bool = False
    targets: tuple[str, ...] = ()
    replayed: str | None = None
    route: str = ""

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        """What ``to_json`` wrote."""
        fields: dict[str, Any] = json.loads(text)
        cache = fields.pop("timing_cache")
        shapes = {
            name: (tuple(least), tuple(usual), tuple(most))
            for name, (least, usual, most) in fields.pop("shapes").items()
        }
        return cls(
            model=Path(fields.pop("model")),
            plan=Path(fields.pop("plan")),
            shapes=shapes,
            timing_cache=None if cache is None else Path(cache),
            targets=tuple(fields.pop("targets")),
            **fields,
        )


@dataclass(frozen=True)
class BuildOutcome:
    """What came of a build that succeeded; the engine itself is in the request's ``plan``.

    Attributes:
        version: Of the library.
        seconds: Parsing and building took, without starting the process.
        size: Bytes of the plan.
        warnings: The builder's own messages, warnings and worse, in order.
        skipped_tactics: Those that tell of tactics skipped for lack of memory.
        layers: The engine inspector's JSON, where the library could load the engine again; else ``None``.
        simulated: The library is a double: no engine was built.
    """

    version: str
    seconds: float
    size: int
    warnings: tuple[str, ...]
    skipped_tactics: tuple[str, ...]
    layers: str | None
    simulated: bool


def build(request: BuildRequest, time_limit: float) -> BuildOutcome:
    """Build an engine in a process of its own.

    Args:
        request: What to build.
        time_limit: Seconds after which the process is killed, with whatever it started.

    Raises:
        ModelError: The library cannot parse or build the model, crashed, or took too long; with its last messages.
        InputError: The timing cache that is to be replayed cannot be read.
        IncompatibleError: It is of another device or release, or lacks a tactic; or the library has no such knob.
        RuntimeNotAvailableError: The library is missing or too old.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "outcome.json"
        with open(Path(folder) / "messages", "w+b") as messages:
            code = _run(request, answer, messages, time_limit)
            said = _last(messages)
        if code is None:
            raise ModelError(f"building {request.model} took longer than {time_limit:.0f} s and was ended{said}")
        return _read(answer, request, code, said)


def _run(request: BuildRequest, answer: Path, messages: IO[bytes], time_limit: float) -> int | None:
    """Run the worker; its exit code, negative for a signal, or ``None`` for one that was ended."""
    process = subprocess.Popen(
        child_command("trt_layermerge.runtimes.nvidia.build_worker", str(answer)),
        stdin=subprocess.PIPE,
        stdout=messages,
        stderr=subprocess.STDOUT,
        env=child_environment(),
        start_new_session=True,  # a group of its own, to be ended as one
    )
    try:
        process.communicate(request.to_json().encode(), time_limit)
        return process.returncode
    except subprocess.TimeoutExpired:
        return None
    finally:  # an interrupt as well
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process's group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(answer: Path, request: BuildRequest, code: int, said: str) -> BuildOutcome:
    try:
        fields = json.loads(answer.read_bytes())
        if "error" in fields:
            raise _ERRORS[fields["error"]](fields["message"], hint=fields["hint"])
        for name in ("warnings", "skipped_tactics"):
            fields[name] = tuple(fields[name])
        return BuildOutcome(**fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the builder {ending(code)} while it built {request.model}, and left no answer{said}",
            hint="if memory ran out, a smaller batch or workspace helps",
        ) from error


def _last(messages: IO[bytes]) -> str:
    """The last messages of a process, to be put behind a sentence."""
    end = messages.seek(0, os.SEEK_END)
    messages.seek(max(0, end - _LAST_BYTES))
    lines = messages.read().decode(errors="replace").splitlines()[-_LAST_MESSAGES:]
    return "; its last messages: " + " | ".join(lines) if lines else ""
