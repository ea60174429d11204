"""Runtimes by name; a runtime's library is imported when it is asked for, not before."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec

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
    require_runtime(name)
    if target and name not in _WITH_TARGETS:
        raise UsageError(f"runtime {name!r} builds for the device that is here, not for {target!r}")
    return _RUNTIMES[name](target) if target else _RUNTIMES[name]()


def require_runtime(name: str) -> None:
    """See that a runtime is likely to be here, without importing anything that takes long.

    Raises:
        UsageError: There is no such runtime.
        RuntimeNotAvailableError: Something is missing that it needs; the message lists all of it.
    """
    name = name.partition(":")[0]
    if name not in _RUNTIMES:
        raise UsageError(f"unknown runtime {name!r}", hint=_suggestion(name))
    if name == "tensorrt" and (missing := missing_for_tensorrt()):
        raise RuntimeNotAvailableError(
            f"runtime 'tensorrt' cannot run here: {'; '.join(error.message for error in missing)}",
            hint="; ".join(dict.fromkeys(error.hint for error in missing if error.hint)),
        )


def missing_for_tensorrt() -> list[RuntimeNotAvailableError]:
    """What ``tensorrt`` needs and is not here; the libraries are looked for, not loaded."""
    from trt_layermerge.runtimes.cuda import has_cuda_bindings, require_driver

    missing = []
    if find_spec("tensorrt") is None:
        missing.append(
            RuntimeNotAvailableError(
                "the package tensorrt is not installed", hint="pip install 'trt_layermerge[tensorrt]'"
            )
        )
    try:
        require_driver()
    except RuntimeNotAvailableError as error:
        missing.append(error)
    if find_spec("pycuda") is None and not has_cuda_bindings():
        missing.append(
            RuntimeNotAvailableError(
                "neither pycuda nor cuda-bindings is installed", hint="pip install 'trt_layermerge[tensorrt]'"
            )
        )
    return missing


def _suggestion(name: str) -> str:
    close = get_close_matches(name.lower(), _RUNTIMES, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known runtimes: {', '.join(_RUNTIMES)}"


def _onnxruntime(provider: str) -> Runtime:
    try:
        from trt_layermerge.runtimes.onnxruntime import OnnxRuntime
    except ModuleNotFoundError as error:
        raise RuntimeNotAvailableError(
            f"runtime 'onnxruntime' needs the package {error.name!r}", hint="pip install onnxruntime"
        ) from error
    return OnnxRuntime(provider)


def _tensorrt() -> Runtime:
    from trt_layermerge.runtimes.tensorrt import TensorRT

    return TensorRT()


def _tensorrt_rtx(*target: str) -> Runtime:
    from trt_layermerge.runtimes.tensorrt_rtx import TensorRtRtx

    return TensorRtRtx(*target)


_RUNTIMES: dict[str, Callable[..., Runtime]] = {
    "onnxruntime": lambda: _onnxruntime("CPUExecutionProvider"),
    "onnxruntime-cuda": lambda: _onnxruntime("CUDAExecutionProvider"),
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
}
_WITH_TARGETS = ("tensorrt-rtx",)
