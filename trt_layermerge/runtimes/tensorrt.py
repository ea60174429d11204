"""TensorRT, 10.9 to 11: engines for the NVIDIA GPU of this machine, timed on it.

Networks are strongly typed: precision lives in the ONNX graph, and what the engine makes of it is read back from its
inspector and compared. Engines are built in processes of their own (``building``) and run in this one.

Never run on a GPU by us: every name and signature is checked against the genuine bindings, behaviour on a double.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorrt as trt

from trt_layermerge import files
from trt_layermerge.errors import ModelError, RuntimeNotAvailableError
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes import timing_cache
from trt_layermerge.runtimes.building import BuildRequest, build
from trt_layermerge.runtimes.cuda import Buffer, Cuda, Event, Graph, driver, open_cuda
from trt_layermerge.runtimes.library import load_library
from trt_layermerge.runtimes.models import shape_ranges, shapes_of, with_shapes
from trt_layermerge.runtimes.nvml import open_nvml
from trt_layermerge.runtimes.protocol import (
    Array,
    BuildOptions,
    Condition,
    Device,
    Model,
    Nanoseconds,
    Shape,
)
from trt_layermerge.runtimes.trtexec import WARM_UP_MS

_WARM_UP_RUNS = 10
_SAMPLE_US = 200.0
"""Least length of what is between two events: launching takes a few us, and an event is exact to half of one."""
_MOST_IN_A_GRAPH = 64
_WIDEST_VECTOR = 32
"""Channels that the widest memory format packs together; tensors in an unknown format get memory for as many."""

_SIMULATED = bool(getattr(trt, "SIMULATED", False))  # a double says so of itself; the library has no such name


class TensorRT:
    """Builds engines with TensorRT, on the first GPU of this machine."""

    name = "tensorrt"

    def __init__(self) -> None:
        """Look for the driver and the libraries.

        Raises:
            RuntimeNotAvailableError: One is missing, or TensorRT is too old.
        """
        load_library("tensorrt")
        self._driver = driver()
        self._nvml = open_nvml(self._driver.pci_bus)

    @cached_property
    def _cuda(self) -> Cuda:
        return open_cuda()

    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""
        self._lock_clocks(options.tuning.lock_clocks_mhz)
        return Device(
            name=self._driver.device,
            runtime=self.name,
            runtime_version=trt.__version__,
            driver=self._driver.version,
            precision=options.precision,
            threads=options.threads,
            timing=_timing(options, self._cuda),
            clocks="not told" if self._nvml is None else self._nvml.clocks,
            settings=_settings(options),
            simulated=_SIMULATED,
            compute_capability=self._driver.compute_capability,
        )

    def condition(self) -> Condition | None:
        """How the GPU is now; ``None`` without NVML."""
        return None if self._nvml is None else self._nvml.condition()

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> TensorRTEngine:
        """Build an engine; see ``Runtime.build``.

        With ``options.batches`` it takes every batch in that range, and is tuned for the batch of the shapes.

        Raises:
            ModelError: The model cannot be read or built; the message is the parser's or the builder's own.
            RuntimeNotAvailableError: The device is not here, or the process that builds cannot use the library.
        """
        proto = read_onnx(model)
        fixed = with_shapes(proto, shapes or {})
        profile = shape_ranges(shapes_of(inputs_of(fixed.graph).values()), options.batches)
        with tempfile.TemporaryDirectory(prefix="trt_layermerge-") as folder:
            source, plan = Path(folder) / "model.onnx", Path(folder) / "model.engine"
            onnx.save(fixed if options.batches is None else proto, source)
            build(self._request(source, plan, profile, options), options.tuning.build_seconds)
            engine = self._engine(plan.read_bytes(), options, "the engine that was just built")
        engine.require_precision(options.precision)
        return engine

    def load(self, path: Path, options: BuildOptions) -> TensorRTEngine:
        """Read an engine that ``TensorRTEngine.save`` wrote.

        An engine is code for one GPU and one release of TensorRT; whoever loads one checks its manifest before.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the engine {path}: {error.strerror}") from error
        return self._engine(data, options, f"file {path}")

    def _request(
        self, model: Path, plan: Path, profile: Mapping[str, tuple[Shape, Shape, Shape]], options: BuildOptions
    ) -> BuildRequest:
        tuning = options.tuning
        cache = tuning.timing_cache or timing_cache.default_path(
            self._driver.device, self._driver.compute_capability, trt.__version__
        )
        return BuildRequest(
            library="tensorrt",
            model=model,
            plan=plan,
            shapes=profile,
            workspace_bytes=None if tuning.workspace_mib is None else tuning.workspace_mib * 2**20,
            optimization_level=tuning.optimization_level,
            tf32=tuning.tf32,
            timing_cache=cache,
            any_format=options.isolated,
        )

    def _engine(self, plan: bytes, options: BuildOptions, where: str) -> TensorRTEngine:
        logger = _Errors()
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan) if plan else None
        if engine is None:
            raise ModelError(f"{where} is no engine of TensorRT {trt.__version__} for this GPU: {logger.last}")
        made = TensorRTEngine(engine, plan, self.describe(options), self._cuda, options)
        made.owners = (runtime, logger)
        return made

    def _lock_clocks(self, mhz: int | None) -> None:
        if mhz is None:
            return
        if self._nvml is None:
            raise RuntimeNotAvailableError(
                "the GPU's clock rate cannot be locked without NVML", hint="pip install nvidia-ml-py"
            )
        self._nvml.lock_clocks(mhz)


class TensorRTEngine:
    """An engine with its buffers in place. ``TensorRT`` makes it.

    Attributes:
        owners: What must live as long as the engine does: TensorRT's runtime and its logger, which C++ points to.
    """

    owners: tuple[object, ...] = ()

    def __init__(self, engine: trt.ICudaEngine, plan: bytes, device: Device, cuda: Cuda, options: BuildOptions) -> None:
        """Make a context, and memory for the largest shapes.

        Raises:
            ModelError: The GPU has not enough memory for it.
        """
        self._engine, self._plan, self._device, self._cuda, self._options = engine, plan, device, cuda, options
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ModelError("TensorRT cannot make room to run the engine: the GPU's memory is full")
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self._inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in self._inputs]
        self._reserve([self._shapes_at(2), self._shapes_at(1)])
        self.inputs: Mapping[str, Shape] = {name: self._shape(name) for name in self._inputs}
        self.outputs: Mapping[str, Shape] = {name: self._shape(name) for name in self._outputs}
        self._events: list[tuple[Event, Event]] = []
        self._upload_random()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; see ``Engine.run``."""
        if self._options.isolated:
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
        """Time single runs, by the GPU's own clock; see ``Engine.time``.

        Runs of a small engine are timed several at once, back to back, and share their mean: see ``_SAMPLE_US``. The
        launch before the first timed one keeps the GPU busy while the others are queued, so that none waits for the
        CPU.
        """
        runs = self._runs_at_once
        launches = ceil(repeats / runs)
        while len(self._events) < launches:
            self._events.append((self._cuda.event(), self._cuda.event()))
        self._launch()
        for start, stop in self._events[:launches]:
            self._cuda.record(start)
            self._launch()
            self._cuda.record(stop)
        self._cuda.synchronize()
        elapsed = [self._cuda.elapsed_ms(start, stop) for start, stop in self._events[:launches]]
        each = np.maximum(np.rint(np.array(elapsed) * 1e6 / runs), 1).astype(np.int64)
        return np.repeat(each, runs)[:repeats]

    def save(self, path: Path) -> None:
        """Write the engine."""
        files.write_bytes(path, self._plan)

    def describe(self) -> Device:
        """The device the engine was built for."""
        return self._device

    def layers(self) -> list[dict[str, Any]]:
        """What the engine inspector tells of each layer."""
        inspector = self._engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        found = json.loads(text).get("Layers", [])
        return [layer for layer in found if isinstance(layer, dict)]

    def require_precision(self, precision: str) -> None:
        """See that the engine's convolutions run in the precision that was asked for.

        Raises:
            ModelError: None of them does.
        """
        convolutions = [text for layer in self.layers() if "conv" in (text := json.dumps(layer).lower())]
        words = _PRECISION_WORDS[precision]
        if convolutions and not any(word in text for text in convolutions for word in words):
            raise ModelError(
                f"TensorRT built a {precision} model without a single {precision} convolution",
                hint="look at the ONNX graph's types; precision is what the graph says",
            )

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
        dtype: np.dtype[Any] = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
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
        generator = np.random.default_rng(0)
        for name in self._inputs:
            dtype, count = self._dtype(name), self._buffers[name].size // self._dtype(name).itemsize
            floating = np.issubdtype(dtype, np.floating)
            drawn = generator.standard_normal(count) if floating else np.zeros(count)
            self._cuda.upload(drawn.astype(dtype), self._buffers[name])

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._cuda.stream):
            raise ModelError("TensorRT could not run the engine; its log says why")

    def _enqueue_several(self, runs: int) -> None:
        for _ in range(runs):
            self._enqueue()

    def _launch(self) -> None:
        """Queue as many runs as are timed at once."""
        if self._graph is None:
            self._enqueue_several(self._runs_at_once)
        else:
            self._graph.launch()

    @cached_property
    def _graph(self) -> Graph | None:
        if not self._options.tuning.cuda_graph:
            return None
        return self._cuda.capture(lambda: self._enqueue_several(self._runs_at_once))

    @cached_property
    def _runs_at_once(self) -> int:
        """Warm up, as trtexec does, and see how many runs make a sample long enough."""
        start, stop = self._cuda.event(), self._cuda.event()
        spent = latest = 0.0
        while spent < WARM_UP_MS:
            self._cuda.record(start)
            self._enqueue_several(_WARM_UP_RUNS)
            self._cuda.record(stop)
            self._cuda.synchronize()
            latest = max(self._cuda.elapsed_ms(start, stop), 1e-3)
            spent += latest
        return min(max(ceil(_SAMPLE_US * _WARM_UP_RUNS / (1e3 * latest)), 1), _MOST_IN_A_GRAPH)


_PRECISION_WORDS = {"fp32": ("float", "fp32"), "fp16": ("half", "fp16"), "int8": ("int8",)}
"""What the inspector's descriptions of formats and data types say of each precision."""


class _Errors(trt.ILogger):  # type: ignore[misc, unused-ignore]  # Any where TensorRT is not installed
    """Keeps the last error, to be part of ours."""

    def __init__(self) -> None:
        """Begin without one."""
        trt.ILogger.__init__(self)
        self.last = "it does not say why"

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.last = msg


def _timing(options: BuildOptions, cuda: Cuda) -> str:
    """What is timed and how, in words; a part of a profile's key, because figures of other modes are others."""
    how = (
        f"a CUDA graph of runs back to back, {_SAMPLE_US:.0f} us or more"
        if options.tuning.cuda_graph
        else "queued runs"
    )
    place = ", inputs and outputs in any format" if options.isolated else ""
    return f"CUDA events around {how}, no transfers, {WARM_UP_MS:.0f} ms warm-up, {cuda.name}{place}"


def _settings(options: BuildOptions) -> str:
    tuning = options.tuning
    workspace = "unlimited" if tuning.workspace_mib is None else f"{tuning.workspace_mib} MiB"
    level = "the library's" if tuning.optimization_level is None else tuning.optimization_level
    return f"optimisation level {level}, workspace {workspace}, TF32 {'on' if tuning.tf32 else 'off'}"
