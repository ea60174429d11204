"""Kinds of runtimes by name, ours and those of other packages; a library is loaded when a runtime is opened.

Another package adds a kind by an entry point of the group ``trt_layermerge.runtimes``: its name is the kind's, its
value a ``RuntimeKind``, as in the lines below.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from trt_layermerge.errors import RuntimeNotAvailableError, UsageError, did_you_mean
from trt_layermerge.runtimes.base import Runtime, RuntimeKind

GROUP = "trt_layermerge.runtimes"

KINDS = {
    "tensorrt": "trt_layermerge.runtimes.tensorrt:KIND",
    "tensorrt-rtx": "trt_layermerge.runtimes.tensorrt_rtx:KIND",
    "onnxruntime": "trt_layermerge.runtimes.onnxruntime:KIND",
    "onnxruntime-cuda": "trt_layermerge.runtimes.onnxruntime_cuda:KIND",
    "torch": "trt_layermerge.runtimes.torch:KIND",
    "estimate": "trt_layermerge.runtimes.estimate:KIND",
}
"""A line a kind. Where a runtime is to be chosen, the first that can time here is: see ``usual_runtime_kind``."""

DEFAULT_RUNTIME = "onnxruntime"


def get_runtime(name: str) -> Runtime:
    """The runtime of this name, its library loaded.

    Args:
        name: Such as ``onnxruntime``; ``tensorrt-rtx:sm86`` names what to compile for as well.

    Raises:
        UsageError: There is no such runtime, or no such target.
        RuntimeNotAvailableError: There is, but not here.
    """
    kind, target = runtime_kind(name), name.partition(":")[2]
    if target and not kind.targets:
        raise UsageError(f"runtime {kind.name!r} builds for the device that is here, not for {target!r}")
    if target and not kind.has_target(target):
        raise UsageError(
            f"runtime {kind.name!r} has no target {target!r}", hint=f"targets it has: {', '.join(kind.targets)}"
        )
    _require(kind, kind.missing())
    return kind.open(target or kind.usual_target())


def require_runtime(name: str) -> None:
    """See that a runtime is likely to be here, without importing anything that takes long.

    Raises:
        UsageError: There is no such runtime.
        RuntimeNotAvailableError: Something is missing that it needs; the message lists all of it.
    """
    kind = runtime_kind(name)
    _require(kind, kind.missing())


def require_running(name: str) -> None:
    """See that a runtime's engines are likely to run here, without importing anything that takes long.

    Raises:
        UsageError: There is no such runtime.
        RuntimeNotAvailableError: Something is missing that it needs for that; the message lists all of it.
    """
    kind = runtime_kind(name)
    _require(kind, kind.missing_to_run(name.partition(":")[2] or None))


def _require(kind: RuntimeKind, missing: list[RuntimeNotAvailableError]) -> None:
    if missing:
        raise RuntimeNotAvailableError(
            f"runtime {kind.name!r} cannot run here: {'; '.join(error.message for error in missing)}",
            hint="; ".join(dict.fromkeys(error.hint for error in missing if error.hint)),
        )


def runtime_kind(name: str) -> RuntimeKind:
    """The kind of a runtime.

    Args:
        name: As ``get_runtime`` takes it.

    Raises:
        UsageError: There is none of this name.
        RuntimeNotAvailableError: The package that adds it is broken.
    """
    name = name.partition(":")[0]
    entry = _entries().get(name)
    if entry is None:
        raise UsageError(
            f"unknown runtime {name!r}",
            hint=did_you_mean(name.lower(), runtime_names(), f"known runtimes: {', '.join(runtime_names())}"),
        )
    try:
        kind = entry.load()
    except Exception as error:  # of another package: whatever its module does
        raise RuntimeNotAvailableError(
            f"runtime {name!r} cannot be loaded from {entry.value}: {error}", hint="mend or remove the package"
        ) from error
    if not isinstance(kind, RuntimeKind) or kind.name != name:
        raise RuntimeNotAvailableError(f"{entry.value}, which the runtime {name!r} names, is no kind of that name")
    return kind


def runtime_kinds() -> list[RuntimeKind]:
    """All kinds that can be loaded, ours first."""
    found = []
    for name in runtime_names():
        try:
            found.append(runtime_kind(name))
        except RuntimeNotAvailableError:  # ``survey`` tells of it; help texts do without
            continue
    return found


def runtime_names() -> list[str]:
    """Names of all kinds, ours first."""
    return list(_entries())


def usual_runtime_kind() -> RuntimeKind:
    """The first kind that runs its engines and has all it needs here; where none has, the first of all says what."""
    kinds = runtime_kinds()
    return next((kind for kind in kinds if not kind.missing_to_run(None)), kinds[0])


@cache
def _entries() -> dict[str, EntryPoint]:
    found = {name: EntryPoint(name, value, GROUP) for name, value in KINDS.items()}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)  # no package takes the place of one of ours
    return found
