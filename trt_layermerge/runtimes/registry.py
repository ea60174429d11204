"""Runtimes by name; a runtime's library is imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from trt_layermerge.errors import RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.protocol import Runtime


def get_runtime(name: str) -> Runtime:
    """The runtime of this name.

    Args:
        name: Such as ``onnxruntime``; ``tensorrt-rtx:sm86`` names what to compile for as well.

    Raises:
        UsageError: There is no such runtime, or no such target.
        RuntimeNotAvailableError: There is, but not here.
    """
    name, _, target = name.partition(":")
    if name in _PLANNED:
        raise RuntimeNotAvailableError(
            f"this build of trt_layermerge has no runtime {name!r} yet",
            hint=f"runtimes it has: {', '.join(_RUNTIMES)}",
        )
    if name not in _RUNTIMES:
        raise UsageError(f"unknown runtime {name!r}", hint=_suggestion(name))
    if target and name not in _WITH_TARGETS:
        raise UsageError(f"runtime {name!r} builds for the device that is here, not for {target!r}")
    return _RUNTIMES[name](target) if target else _RUNTIMES[name]()


def _suggestion(name: str) -> str:
    close = get_close_matches(name.lower(), [*_RUNTIMES, *_PLANNED], n=1)
    return f"did you mean {close[0]!r}?" if close else f"known runtimes: {', '.join(_RUNTIMES)}"


def _onnxruntime(provider: str) -> Runtime:
    try:
        from trt_layermerge.runtimes.onnxruntime import OnnxRuntime
    except ModuleNotFoundError as error:
        raise RuntimeNotAvailableError(
            f"runtime 'onnxruntime' needs the package {error.name!r}", hint="pip install onnxruntime"
        ) from error
    return OnnxRuntime(provider)


def _tensorrt_rtx(*target: str) -> Runtime:
    from trt_layermerge.runtimes.tensorrt_rtx import TensorRtRtx

    return TensorRtRtx(*target)


_RUNTIMES: dict[str, Callable[..., Runtime]] = {
    "onnxruntime": lambda: _onnxruntime("CPUExecutionProvider"),
    "onnxruntime-cuda": lambda: _onnxruntime("CUDAExecutionProvider"),
    "tensorrt-rtx": _tensorrt_rtx,
}
_WITH_TARGETS = ("tensorrt-rtx",)
_PLANNED = ("tensorrt",)
