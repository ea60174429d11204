"""An engine of PyTorch: kernel calls with their inputs in place, run and timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnx

from trt_layermerge import files
from trt_layermerge.errors import ModelError, said
from trt_layermerge.runtimes.base import Array, Device, Nanoseconds, Shape
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.gpu_timer import GpuTimer
from trt_layermerge.runtimes.pytorch.kernel_calls import KernelCalls
from trt_layermerge.runtimes.pytorch.torch_stream import TorchStream


class TorchEngine:
    """A model that PyTorch runs. ``TorchRuntime`` makes it."""

    def __init__(self, model: onnx.ModelProto, calls: KernelCalls, device: Device, settings: GpuSettings) -> None:
        """Keep the model, to be saved, and its calls."""
        self._model, self._calls, self._device, self._settings = model, calls, device, settings
        self.inputs: Mapping[str, Shape] = {name: tuple(value.shape) for name, value in calls.feeds.items()}
        self.outputs: Mapping[str, Shape] = {name: tuple(value.shape) for name, value in calls.outputs.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; see ``Engine.run``."""
        wanted = {name: (tuple(value.shape), value.dtype) for name, value in self._calls.feeds.items()}
        given = {name: self._calls.placed(array) for name, array in inputs.items()}
        if {name: (tuple(value.shape), value.dtype) for name, value in given.items()} != wanted:
            takes = ", ".join(f"{name!r} {dtype} of shape {shape}" for name, (shape, dtype) in wanted.items())
            raise ModelError(f"the engine takes {takes}")
        with _running():
            return {name: np.array(value.cpu().numpy()) for name, value in self._calls.run(given).items()}

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs; see ``Engine.time``. On a CPU each run makes room for what it computes, as PyTorch does."""
        if self._calls.place.type == "cuda":
            with self._calls.computing(), _running():
                return self._timer.time(repeats)
        run, given, clock = self._calls.enqueue, tuple(self._calls.feeds.values()), perf_counter_ns
        times = np.empty(repeats, np.int64)
        with self._calls.computing(), _running():
            for index in range(repeats):
                begin = clock()
                run(*given)
                times[index] = clock() - begin
        return times

    def time_host(self, repeats: int) -> Nanoseconds:
        """Time single calls of ``run`` by the host's clock, copies to and from the device included."""
        given = {name: np.array(value.cpu().numpy()) for name, value in self._calls.feeds.items()}
        times = np.empty(repeats, np.int64)
        for index in range(repeats):
            begin = perf_counter_ns()
            self.run(given)
            times[index] = perf_counter_ns() - begin
        return times

    def save(self, path: Path) -> None:
        """Write the model, its shapes fixed."""
        files.write_bytes(path, self._model.SerializeToString())

    def describe(self) -> Device:
        """The device the engine was built for."""
        return self._device

    def layout_conversions(self) -> tuple[str, ...]:
        """The copies into another layout and back, and those that a block cannot do without."""
        return self._calls.copies()

    @cached_property
    def _timer(self) -> GpuTimer:
        stream, given = TorchStream(self._calls.place), tuple(self._calls.feeds.values())
        return GpuTimer(stream, lambda: stream.queue(lambda: self._calls.enqueue(*given)), self._settings)


@contextmanager
def _running() -> Iterator[None]:
    """Inside, what stops PyTorch, as a GPU without memory does, is a fault of what it runs there."""
    try:
        yield
    except RuntimeError as error:
        raise ModelError(f"PyTorch cannot run the network: {said(error)}") from error
