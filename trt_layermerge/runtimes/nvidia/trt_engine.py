"""An engine of TensorRT on the GPU of this machine: its buffers, its runs, their times, and what it is made of.

Never run on a GPU by us: every name and signature is checked against the genuine bindings, behaviour on a double.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from trt_layermerge import files
from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.base import UNKNOWN_PRECISION, Array, BuildOptions, Device, Nanoseconds, Shape
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.cuda import Buffer, Cuda
from trt_layermerge.runtimes.nvidia.gpu_timer import GpuTimer

if TYPE_CHECKING:  # of whichever library made the engine: TensorRT-RTX offers what is used here, too
    import tensorrt as trt

_WIDEST_VECTOR = 32
"""Channels that the widest memory format packs together; tensors in an unknown format get memory for as many."""

_WORDS = {"fp32": ("float", "fp32"), "fp16": ("half", "fp16"), "int8": ("int8",)}
"""What the inspector's descriptions of formats and data types say of each precision."""


@dataclass(frozen=True)
class EngineWords:
    """What the library that made an engine calls things.

    Attributes:
        input: The mode of an input.
        json: The inspector's format.
        numpy_type: NumPy's type of one of its own.
        profiler: Makes what is told of the time of each layer.
    """

    input: Any
    json: Any
    numpy_type: Callable[[Any], Any]
    profiler: Callable[[], Any]


class TensorRTEngine:
    """An engine with its buffers in place. ``TensorRT`` makes it.

    Attributes:
        plan: The serialised engine.
        options: With which it was built.
        owners: What must live as long as the engine does: TensorRT's runtime and its logger, which C++ points to.
    """

    owners: tuple[object, ...] = ()

    def __init__(
        self,
        engine: trt.ICudaEngine,
        context: trt.IExecutionContext | None,
        words: EngineWords,
        device: Device,
        cuda: Cuda,
        options: BuildOptions,
        plan: bytes,
    ) -> None:
        """Make room for the largest shapes.

        Raises:
            ModelError: The GPU has not enough memory for it.
        """
        self._engine, self.plan, self._device, self._cuda, self.options = engine, plan, device, cuda, options
        self._words = words
        if context is None:
            raise ModelError("TensorRT cannot make room to run the engine: the GPU's memory is full")
        self._context = context
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == words.input]
        self._outputs = [name for name in names if name not in self._inputs]
        self._reserve([self._shapes_at(2), self._shapes_at(1)])
        self.inputs: Mapping[str, Shape] = {name: self._shape(name) for name in self._inputs}
        self.outputs: Mapping[str, Shape] = {name: self._shape(name) for name in self._outputs}
        self._timer = GpuTimer(cuda, self._enqueue, GpuSettings.of(options.settings))
        self._upload_random()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; see ``Engine.run``."""
        if self.options.isolated:
            raise ModelError("an engine built to be timed amid a network takes tensors in a layout of its own")
        self._set_shapes(self._checked(inputs))
        for name, array in inputs.items():
            self._cuda.upload(np.ascontiguousarray(array, self._dtype(name)), self._buffers[name])
        self._enqueue()
        self._cuda.synchronize()
        results = {name: np.empty(self._shape(name), self._dtype(name)) for name in self._outputs}
        for name, array in results.items():
            self._cuda.download(self._buffers[name], array)
        self._set_shapes(self.inputs)
        return results

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs, by the GPU's own clock; see ``Engine.time``."""
        return self._timer.time(repeats)

    def time_host(self, repeats: int) -> Nanoseconds:
        """Time single requests by the host's clock: inputs up, a run, outputs down; memory is ordinary, not pinned."""
        sent = {name: self._drawn(name, prod(self._shape(name))) for name in self._inputs}
        received = {name: np.empty(self._shape(name), self._dtype(name)) for name in self._outputs}
        times = np.empty(repeats, np.int64)
        for index in range(repeats):
            begin = perf_counter_ns()
            for name, array in sent.items():
                self._cuda.upload(array, self._buffers[name])
            self._enqueue()
            for name, array in received.items():
                self._cuda.download(self._buffers[name], array)
            self._cuda.synchronize()
            times[index] = perf_counter_ns() - begin
        return times

    def time_layers(self, repeats: int) -> Mapping[str, Sequence[float]]:
        """Time each layer in single runs, in ms.

        The library looks at its clock between them, from now on: a context that has a profiler keeps it.
        """
        profiler = self._words.profiler()
        self._context.profiler = profiler
        for _ in range(repeats):
            self._enqueue()
            self._cuda.synchronize()
        found: Mapping[str, Sequence[float]] = profiler.times
        return found

    def warm_up(self) -> None:
        """Run once, on random inputs: what a library puts off until the first run is then done."""
        self._enqueue()
        self._cuda.synchronize()

    def save(self, path: Path) -> None:
        """Write the engine."""
        files.write_bytes(path, self.plan)

    def describe(self) -> Device:
        """The device the engine was built for."""
        return self._device

    def information(self) -> str:
        """What the engine inspector tells, as JSON."""
        return str(self._engine.create_engine_inspector().get_engine_information(self._words.json))

    def layers(self) -> list[dict[str, Any]]:
        """What the engine inspector tells of each layer."""
        found = json.loads(self.information()).get("Layers", [])
        return [layer for layer in found if isinstance(layer, dict)]

    def convolution_precisions(self) -> frozenset[str]:
        """What the engine's convolutions are computed in, as the inspector describes their formats and weights."""
        found = set()
        for layer in self.layers():
            text = json.dumps(layer).lower()
            if "conv" in text:
                known = {precision for precision, words in _WORDS.items() if any(word in text for word in words)}
                found |= known or {UNKNOWN_PRECISION}
        return frozenset(found)

    def layout_conversions(self) -> tuple[str, ...]:
        """Names of the layers that only reformat a tensor."""
        return tuple(str(layer.get("Name")) for layer in self.layers() if layer.get("LayerType") == "Reformat")

    def _shapes_at(self, which: int) -> Mapping[str, Shape]:
        """Shapes of the inputs: the smallest (0), those the engine was tuned for (1), or the largest (2)."""
        shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._inputs}
        return {
            name: tuple(self._engine.get_tensor_profile_shape(name, 0)[which]) if -1 in shape else shape
            for name, shape in shapes.items()
        }

    def _reserve(self, settings: list[Mapping[str, Shape]]) -> None:
        """Set shapes, one after the other; the buffers are large enough for all of them."""
        sizes: dict[str, int] = {}
        for shapes in settings:
            self._set_shapes(shapes)
            for name in self._inputs + self._outputs:
                sizes[name] = max(sizes.get(name, 1), self._bytes(name))
        self._buffers: dict[str, Buffer] = {name: self._cuda.allocate(size) for name, size in sizes.items()}
        for name, buffer in self._buffers.items():
            self._context.set_tensor_address(name, buffer.address)

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise ModelError(f"input {name!r} cannot be of shape {shape}: the engine was not built for it")

    def _shape(self, name: str) -> Shape:
        return tuple(self._context.get_tensor_shape(name))

    def _dtype(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._words.numpy_type(self._engine.get_tensor_dtype(name)))
        return dtype

    def _bytes(self, name: str) -> int:
        shape = self._shape(name)
        if len(shape) > 1:  # whatever the format packs together are channels
            shape = (shape[0], -(-shape[1] // _WIDEST_VECTOR) * _WIDEST_VECTOR, *shape[2:])
        return prod(shape) * self._dtype(name).itemsize

    def _checked(self, inputs: Mapping[str, Array]) -> Mapping[str, Shape]:
        if inputs.keys() != set(self._inputs):
            raise ModelError(f"the engine's inputs are {', '.join(self._inputs)}, not {', '.join(inputs) or 'none'}")
        smallest, largest = self._shapes_at(0), self._shapes_at(2)
        for name, array in inputs.items():
            low, high = smallest[name], largest[name]
            fits = len(array.shape) == len(low) and all(
                least <= size <= most for least, size, most in zip(low, array.shape, high, strict=True)
            )
            if not fits:
                raise ModelError(f"input {name!r} of shape {array.shape} is not between {low} and {high}")
        return {name: tuple(array.shape) for name, array in inputs.items()}

    def _upload_random(self) -> None:
        for name in self._inputs:
            buffer = self._buffers[name]
            self._cuda.upload(self._drawn(name, buffer.size // self._dtype(name).itemsize), buffer)

    def _drawn(self, name: str, count: int) -> Array:
        """So many random values of a tensor's type; zeros where that is none of floats."""
        floating = np.issubdtype(self._dtype(name), np.floating)
        drawn = np.random.default_rng(0).standard_normal(count) if floating else np.zeros(count)
        return drawn.astype(self._dtype(name))

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise ModelError("TensorRT could not run the engine; its log says why")
