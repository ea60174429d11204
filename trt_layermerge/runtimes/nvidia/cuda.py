"""CUDA as far as engines need it: is there a driver, and buffers, one stream, events and graphs.

Two libraries offer these: pycuda, taken where it is installed, and NVIDIA's cuda-bindings, which torch's CUDA build
brings along. pycuda has no CUDA graphs; they are captured with cuda-bindings, on pycuda's stream, where both are here.

cuda-bindings has run on an H200: docs/experiments/gpu.md. pycuda has on no GPU of ours: its names and signatures are
checked against the library, behaviour on a double.
"""

from __future__ import annotations

import atexit
import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from trt_layermerge.errors import ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes.base import Array, is_installed
from trt_layermerge.runtimes.machine import gpu_driver

_LIBRARY = "libcuda.so.1"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h, for which pycuda has no name
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h


@dataclass(frozen=True)
class CudaDriver:
    """The NVIDIA driver and the first GPU that it offers.

    Attributes:
        version: Of the driver, such as ``570.86.15``; of CUDA, where only that can be told.
        cuda: Newest CUDA that it supports, such as ``12.8``.
        device: The GPU's model name.
        compute_capability: Such as ``7.5``.
        pci_bus: Where the GPU is, as ``0000:01:00.0``; NVML knows it by the same name.
    """

    version: str
    cuda: str
    device: str
    compute_capability: str
    pci_bus: str


@cache
def driver() -> CudaDriver:
    """The driver of this machine.

    TensorRT's runtime may crash the process where there is none, so that this is asked first, of the driver itself.

    Raises:
        RuntimeNotAvailableError: There is no driver, it does not start, or it sees no GPU.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise RuntimeNotAvailableError(
            f"there is no NVIDIA driver here: {_LIBRARY} cannot be loaded",
            hint="install NVIDIA's driver, 580 or newer (535 for CUDA 12); in a container, pass --gpus all",
        ) from error
    _ask(library, "cuInit", 0)
    count = _number(library, "cuDeviceGetCount")
    if not count:
        raise RuntimeNotAvailableError(
            "the NVIDIA driver sees no GPU", hint="look at nvidia-smi and at CUDA_VISIBLE_DEVICES"
        )
    device = _number(library, "cuDeviceGet", 0)
    cuda = _number(library, "cuDriverGetVersion")
    cuda_version = f"{cuda // 1000}.{cuda % 1000 // 10}"
    major, minor = (_number(library, "cuDeviceGetAttribute", attribute, device) for attribute in (_MAJOR, _MINOR))
    return CudaDriver(
        version=gpu_driver() or f"of CUDA {cuda_version}",
        cuda=cuda_version,
        device=_text(library, "cuDeviceGetName", device),
        compute_capability=f"{major}.{minor}",
        pci_bus=_text(library, "cuDeviceGetPCIBusId", device),
    )


def require_driver() -> None:
    """See that there is a driver and a GPU.

    Raises:
        RuntimeNotAvailableError: There is not.
    """
    driver()


def missing_driver() -> list[RuntimeNotAvailableError]:
    """Why there is no driver; empty where there is one."""
    try:
        require_driver()
    except RuntimeNotAvailableError as error:
        return [error]
    return []


def missing_binding() -> list[RuntimeNotAvailableError]:
    """Why CUDA cannot be reached from Python; empty where it can."""
    if is_installed("pycuda") or has_cuda_bindings():
        return []
    return [
        RuntimeNotAvailableError(
            "neither pycuda nor cuda-bindings is installed",
            hint="pip install cuda-bindings, of the major version of CUDA that your library is for; or pycuda",
        )
    ]


def _ask(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    if code := getattr(library, function)(*arguments):
        raise RuntimeNotAvailableError(
            f"the NVIDIA driver does not work: {function} returned error {code}",
            hint="look at nvidia-smi; after an update of the driver the machine needs a restart",
        )


def _number(library: ctypes.CDLL, function: str, *arguments: object) -> int:
    result = ctypes.c_int()
    _ask(library, function, ctypes.byref(result), *arguments)
    return result.value


def _text(library: ctypes.CDLL, function: str, device: int) -> str:
    buffer = ctypes.create_string_buffer(256)
    _ask(library, function, buffer, ctypes.c_int(len(buffer)), ctypes.c_int(device))
    return buffer.value.decode(errors="replace")


@dataclass(frozen=True)
class Buffer:
    """Memory of the GPU, given back when nobody holds this any more.

    Attributes:
        address: Where it begins.
        size: In bytes.
        owner: Keeps the memory; whoever made it knows what it is.
    """

    address: int
    size: int
    owner: Any


@dataclass(frozen=True)
class Event:
    """A point in time that the GPU takes.

    Attributes:
        owner: The library's own event.
    """

    owner: Any


class Graph(Protocol):
    """What was captured, to be launched as a whole."""

    def launch(self) -> None:
        """Queue it on the stream that it was captured on."""


class Stream(Protocol):
    """One stream of a GPU; everything is queued on it."""

    @property
    def name(self) -> str:
        """The library, such as ``cuda-bindings``."""

    def event(self) -> Event:
        """A point in time, to be recorded."""

    def record(self, event: Event) -> None:
        """Let the GPU take the time when it has done all that was queued before."""

    def elapsed_ms(self, start: Event, stop: Event) -> float:
        """Time between two events that have come to pass, in ms, to half a microsecond."""

    def synchronize(self) -> None:
        """Wait until all that was queued is done."""

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Make a graph of what a function queues, without running it.

        Raises:
            RuntimeNotAvailableError: No library here can do that.
            ModelError: What it queues cannot be captured.
        """


class Cuda(Stream, Protocol):
    """The first GPU, its memory, and one stream on it."""

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""

    def allocate(self, size: int) -> Buffer:
        """Memory of so many bytes.

        Raises:
            ModelError: There is not so much.
        """

    def upload(self, array: Array, buffer: Buffer) -> None:
        """Copy a contiguous array to the GPU; done when this returns."""

    def download(self, buffer: Buffer, array: Array) -> None:
        """Copy from the GPU into a contiguous array; done when this returns."""


def open_cuda() -> Cuda:
    """CUDA with the library that is installed.

    Raises:
        RuntimeNotAvailableError: None is, or there is no GPU.
    """
    require_driver()
    for missing in missing_binding():
        raise missing
    return _PyCuda() if is_installed("pycuda") else _CudaBindings()


def has_cuda_bindings() -> bool:
    """Whether NVIDIA's cuda-bindings is installed."""
    return is_installed("cuda.bindings.runtime")


class _CudaBindings:
    """CUDA by NVIDIA's own bindings."""

    name = "cuda-bindings"

    def __init__(self) -> None:
        """Take the first GPU and make the stream."""
        from cuda.bindings import runtime

        self._runtime = runtime
        # Spinning, not sleeping, while it waits: as trtexec --useSpinWait.
        _checked(runtime.cudaSetDeviceFlags(runtime.cudaDeviceScheduleSpin))
        _checked(runtime.cudaSetDevice(0))
        self._stream = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        weakref.finalize(self, runtime.cudaStreamDestroy, self._stream)

    @property
    def stream(self) -> int:
        return int(self._stream)

    def allocate(self, size: int) -> Buffer:
        address = _checked(self._runtime.cudaMalloc(size))
        buffer = Buffer(int(address), size, None)
        weakref.finalize(buffer, self._runtime.cudaFree, address)
        return buffer

    def upload(self, array: Array, buffer: Buffer) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(self._runtime.cudaMemcpyAsync(buffer.address, array.ctypes.data, array.nbytes, kind, self._stream))
        self.synchronize()

    def download(self, buffer: Buffer, array: Array) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(self._runtime.cudaMemcpyAsync(array.ctypes.data, buffer.address, array.nbytes, kind, self._stream))
        self.synchronize()

    def event(self) -> Event:
        event = Event(_checked(self._runtime.cudaEventCreateWithFlags(self._runtime.cudaEventDefault)))
        weakref.finalize(event, self._runtime.cudaEventDestroy, event.owner)
        return event

    def record(self, event: Event) -> None:
        _checked(self._runtime.cudaEventRecord(event.owner, self._stream))

    def elapsed_ms(self, start: Event, stop: Event) -> float:
        return float(_checked(self._runtime.cudaEventElapsedTime(start.owner, stop.owner)))

    def synchronize(self) -> None:
        _checked(self._runtime.cudaStreamSynchronize(self._stream))

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        return _capture(self._stream, enqueue)


class _PyCuda:
    """CUDA by pycuda, in the primary context, which TensorRT and other libraries share."""

    name = "pycuda"

    def __init__(self) -> None:
        """Take the first GPU and make the stream."""
        import pycuda.driver

        self._driver = pycuda.driver
        pycuda.driver.init()
        # Not pycuda.autoprimaryctx, which takes the GPU that ~/.cuda_device names.
        context = pycuda.driver.Device(0).retain_primary_context()
        context.push()
        atexit.register(context.pop)
        self._stream = pycuda.driver.Stream(_NON_BLOCKING)

    @property
    def stream(self) -> int:
        return int(self._stream.handle)

    def allocate(self, size: int) -> Buffer:
        try:
            memory = self._driver.mem_alloc(size)
        except self._driver.MemoryError as error:
            raise ModelError(f"the GPU has no {size / 2**20:.0f} MiB left: {error}") from error
        return Buffer(int(memory), size, memory)

    def upload(self, array: Array, buffer: Buffer) -> None:
        self._driver.memcpy_htod_async(buffer.address, array, self._stream)
        self.synchronize()

    def download(self, buffer: Buffer, array: Array) -> None:
        self._driver.memcpy_dtoh_async(array, buffer.address, self._stream)
        self.synchronize()

    def event(self) -> Event:
        return Event(self._driver.Event())

    def record(self, event: Event) -> None:
        event.owner.record(self._stream)

    def elapsed_ms(self, start: Event, stop: Event) -> float:
        return float(start.owner.time_till(stop.owner))

    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        if not has_cuda_bindings():
            raise RuntimeNotAvailableError(
                "pycuda has no CUDA graphs, and cuda-bindings, which has, is not installed",
                hint="pip install cuda-bindings, or time without: --no-cuda-graph",
            )
        return _capture(self.stream, enqueue)


@dataclass(frozen=True)
class _Graph:
    """A graph of CUDA's runtime, ready to be launched on the stream it was captured on."""

    executable: Any
    stream: Any

    def launch(self) -> None:
        from cuda.bindings import runtime

        _checked(runtime.cudaGraphLaunch(self.executable, self.stream))


def _capture(stream: Any, enqueue: Callable[[], None]) -> Graph:
    """Capture what a function queues on a stream, given by its handle."""
    from cuda.bindings import runtime

    _checked(runtime.cudaStreamBeginCapture(stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
    try:
        enqueue()
    finally:
        ended = runtime.cudaStreamEndCapture(stream)
    captured = _checked(ended)
    executable = _checked(runtime.cudaGraphInstantiate(captured, 0))
    _checked(runtime.cudaGraphDestroy(captured))
    graph = _Graph(executable, stream)
    weakref.finalize(graph, runtime.cudaGraphExecDestroy, executable)
    return graph


def _checked(returned: tuple[Any, ...]) -> Any:
    """The result of a call of cuda-bindings, which returns its error first.

    Raises:
        ModelError: The call failed; the message names CUDA's own error.
    """
    from cuda.bindings import runtime

    error, *results = returned
    if error != runtime.cudaError_t.cudaSuccess:
        _, description = runtime.cudaGetErrorString(error)
        text = description.decode() if isinstance(description, bytes) else str(description)
        raise ModelError(f"CUDA: {text} ({error.name})")
    return results[0] if results else None
