"""A double of CUDA's runtime on host memory: what is queued runs at once, or is recorded while a graph is captured.

Time is a clock of its own that advances by what each piece of work took, or by what the settings say it takes, so that
tests neither wait nor tremble.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable
from enum import IntEnum

from double_settings import setting

cudaStreamNonBlocking = 1
cudaEventDefault = 0
cudaDeviceScheduleSpin = 1

_random = random.Random(0)


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorLaunchFailure = 719
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3
    cudaMemcpyDefault = 4


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


_Work = Callable[[], None]
_SUCCESS = (cudaError_t.cudaSuccess,)


class _Handle:
    def __init__(self) -> None:
        _handles[id(self)] = self
        self.alive = True

    def __int__(self) -> int:
        return id(self)


_handles: dict[int, _Handle] = {}
_memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
_clock_ms = 0.0
_runs = 0
_uploads = 0


class cudaStream_t(_Handle):
    captured: list[_Work] | None = None


class cudaEvent_t(_Handle):
    at: float | None = None


class cudaGraph_t(_Handle):
    works: tuple[_Work, ...] = ()


class cudaGraphExec_t(_Handle):
    works: tuple[_Work, ...] = ()


def _stream(stream: object) -> cudaStream_t | None:
    handle = _handles.get(int(stream))  # type: ignore[call-overload]
    return handle if isinstance(handle, cudaStream_t) and handle.alive else None


def _lost() -> bool:
    after = setting("lost_after")
    return after is not None and _runs >= after


def _queue(stream: object, work: _Work) -> tuple[cudaError_t]:
    there = _stream(stream)
    if there is None:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    if _lost():
        return (cudaError_t.cudaErrorLaunchFailure,)
    if there.captured is None:
        work()
    else:
        there.captured.append(work)
    return _SUCCESS


def _run_engine(stream: int, compute: _Work, pace: float = 1.0) -> bool:
    """Queue a run of an engine, as TensorRT's double does; its time is what the settings say, or what it took."""

    def work() -> None:
        global _clock_ms, _runs
        begin = time.perf_counter()
        compute()
        took = setting("run_us")
        took = 1e6 * (time.perf_counter() - begin) if took is None else took
        _clock_ms += 1e-3 * took * pace * (1 + setting("noise") * _random.random())
        _runs += 1

    return _queue(stream, work) == _SUCCESS


def cudaSetDeviceFlags(flags: int) -> tuple[cudaError_t]:
    return _SUCCESS


def cudaSetDevice(device: int) -> tuple[cudaError_t]:
    return _SUCCESS if device == 0 else (cudaError_t.cudaErrorInvalidValue,)


def cudaGetErrorString(error: cudaError_t) -> tuple[cudaError_t, bytes]:
    words = {"cudaErrorMemoryAllocation": b"out of memory", "cudaErrorLaunchFailure": b"unspecified launch failure"}
    return cudaError_t.cudaSuccess, words.get(error.name, error.name.encode())


def cudaMalloc(size: int) -> tuple[cudaError_t, int | None]:
    if size + sum(map(len, list(_memory.values()))) > setting("memory_bytes"):
        return cudaError_t.cudaErrorMemoryAllocation, None
    block = ctypes.create_string_buffer(size)
    _memory[ctypes.addressof(block)] = block
    return cudaError_t.cudaSuccess, ctypes.addressof(block)


def cudaFree(devPtr: int) -> tuple[cudaError_t]:
    return _SUCCESS if _memory.pop(devPtr, None) is not None else (cudaError_t.cudaErrorInvalidValue,)


def _inside(address: int, count: int) -> bool:
    return any(begin <= address and address + count <= begin + len(block) for begin, block in _memory.items())


def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: object) -> tuple[cudaError_t]:
    device = dst if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else src
    if not _inside(device, count):
        return (cudaError_t.cudaErrorInvalidValue,)

    def copy() -> None:
        global _uploads
        _uploads += kind == cudaMemcpyKind.cudaMemcpyHostToDevice
        ctypes.memmove(dst, src, count)

    return _queue(stream, copy)


def cudaStreamCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaStream_t]:
    return cudaError_t.cudaSuccess, cudaStream_t()


def cudaStreamDestroy(stream: object) -> tuple[cudaError_t]:
    return _destroy(stream)


def cudaStreamSynchronize(stream: object) -> tuple[cudaError_t]:
    there = _stream(stream)
    if there is not None and there.captured is not None:
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    return _queue(stream, lambda: None)


def cudaEventCreateWithFlags(flags: int) -> tuple[cudaError_t, cudaEvent_t]:
    return cudaError_t.cudaSuccess, cudaEvent_t()


def cudaEventRecord(event: cudaEvent_t, stream: object) -> tuple[cudaError_t]:
    def record() -> None:
        event.at = _clock_ms

    return _queue(stream, record)


def cudaEventElapsedTime(start: cudaEvent_t, end: cudaEvent_t) -> tuple[cudaError_t, float | None]:
    if start.at is None or end.at is None:
        return cudaError_t.cudaErrorInvalidResourceHandle, None
    return cudaError_t.cudaSuccess, end.at - start.at


def cudaEventDestroy(event: object) -> tuple[cudaError_t]:
    return _destroy(event)


def cudaStreamBeginCapture(stream: object, mode: cudaStreamCaptureMode) -> tuple[cudaError_t]:
    there = _stream(stream)
    if there is None or there.captured is not None:
        return (cudaError_t.cudaErrorInvalidValue,)
    there.captured = []
    return _SUCCESS


def cudaStreamEndCapture(stream: object) -> tuple[cudaError_t, cudaGraph_t | None]:
    there = _stream(stream)
    if there is None or there.captured is None:
        return cudaError_t.cudaErrorInvalidValue, None
    graph = cudaGraph_t()
    graph.works, there.captured = tuple(there.captured), None
    return cudaError_t.cudaSuccess, graph


def cudaGraphInstantiate(graph: cudaGraph_t, flags: int) -> tuple[cudaError_t, cudaGraphExec_t | None]:
    if not graph.alive:
        return cudaError_t.cudaErrorInvalidValue, None
    executable = cudaGraphExec_t()
    executable.works = graph.works
    return cudaError_t.cudaSuccess, executable


def cudaGraphLaunch(graphExec: cudaGraphExec_t, stream: object) -> tuple[cudaError_t]:
    if not graphExec.alive:
        return (cudaError_t.cudaErrorInvalidValue,)

    def replay() -> None:
        for work in graphExec.works:
            work()

    return _queue(stream, replay)


def cudaGraphExecDestroy(graphExec: object) -> tuple[cudaError_t]:
    return _destroy(graphExec)


def cudaGraphDestroy(graph: object) -> tuple[cudaError_t]:
    return _destroy(graph)


def _destroy(thing: object) -> tuple[cudaError_t]:
    handle = _handles.pop(int(thing), None)  # type: ignore[call-overload]
    if handle is None:
        return (cudaError_t.cudaErrorInvalidResourceHandle,)
    handle.alive = False
    return _SUCCESS
