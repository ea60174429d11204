"""ONNX Runtime: the CPU that is everywhere, CUDA where asked for and present; never one in place of the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from time import perf_counter_ns

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from trt_layermerge import files
from trt_layermerge.errors import ModelError, RuntimeNotAvailableError, said
from trt_layermerge.onnxfile import named_model, read_onnx
from trt_layermerge.runtimes import machine
from trt_layermerge.runtimes.base import Array, BuildOptions, Device, Model, Nanoseconds, Runtime, Shape
from trt_layermerge.runtimes.models import with_shapes
from trt_layermerge.runtimes.onnxruntime import KIND as CPU
from trt_layermerge.runtimes.onnxruntime import OnnxRuntimeKind
from trt_layermerge.runtimes.ort.isolation import in_place, isolated

_ERRORS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    ValueError,  # of the Python layer, where an input is missing
)
_CAST = "FP16 weights, computed in FP32 with casts"
"""What a latency in FP16 is of here: the CPU provider has hardly any kernels for halves."""

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


_REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")


class OnnxRuntime(Runtime):
    """Builds engines with ONNX Runtime, on one provider."""

    def __init__(self, kind: OnnxRuntimeKind = CPU) -> None:
        """Choose where to run.

        Args:
            kind: Whose provider it is.

        Raises:
            RuntimeNotAvailableError: The installed ONNX Runtime does not have the provider.
        """
        kind.found()
        self.kind, self._provider, self._memory = kind, kind.provider, kind.memory
        self._on_cpu = kind.memory == "cpu"

    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""
        on_cpu = self._on_cpu
        place = ", amid blocked neighbours" if options.isolated and on_cpu else ""
        return Device(
            name=machine.cpu_name() if on_cpu else machine.gpu_name() or "unknown GPU",
            runtime=self.name,
            runtime_version=ort.__version__,
            driver=None if on_cpu else machine.gpu_driver(),
            precision=options.precision,
            threads=options.threads,
            timing=f"wall clock of one run, bound buffers{place}",
            clocks=machine.cpu_clock_policy() if on_cpu else "not told",
            settings=_CAST if on_cpu and options.precision == "fp16" else "",
        )

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> OnnxEngine:
        """Build an engine; see ``Runtime.build``."""
        proto = with_shapes(read_onnx(model), shapes or {})
        # Only the CPU has a blocked layout to stay in.
        if options.isolated and self._on_cpu:
            proto = isolated(proto, lambda bracketed: self._optimised(bracketed, options))
            return self._engine(proto, options, optimise=False)
        return self._engine(proto, options, named_model(model), optimise=True)

    def load(self, path: Path, options: BuildOptions) -> OnnxEngine:
        """Read an engine that ``OnnxEngine.save`` wrote; it is not optimised again."""
        return self._engine(read_onnx(path), options, named_model(path), optimise=False)

    def _engine(
        self, model: onnx.ModelProto, options: BuildOptions, where: str = "the model", *, optimise: bool
    ) -> OnnxEngine:
        session = self._session(model.SerializeToString(), _session_options(options, optimise=optimise), where)
        shared = in_place(model) if options.isolated else None
        saved = (lambda: self._optimised(model, options)) if optimise else lambda: model
        return OnnxEngine(session, self.describe(options), saved, shared, memory=self._memory)

    def _optimised(self, model: onnx.ModelProto, options: BuildOptions) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory() as folder:
            settings, path = _session_options(options, optimise=True), Path(folder) / "optimised.onnx"
            settings.optimized_model_filepath = str(path)
            self._session(model.SerializeToString(), settings)
            return onnx.load(path)

    def _session(self, model: bytes, settings: ort.SessionOptions, where: str = "the model") -> ort.InferenceSession:
        with _model_errors(f"ONNX Runtime cannot build {where}"):
            session = ort.InferenceSession(model, settings, providers=[self._provider])
        if session.get_providers()[0] != self._provider:
            raise RuntimeNotAvailableError(
                f"{self._provider} did not start; ONNX Runtime would have used {session.get_providers()[0]} instead",
                hint="look at the driver, CUDA and cuDNN versions that this onnxruntime-gpu needs",
            )
        return session


class OnnxEngine:
    """A session with its inputs and outputs in place. ``OnnxRuntime`` makes it."""

    def __init__(
        self,
        session: ort.InferenceSession,
        device: Device,
        saved: Callable[[], onnx.ModelProto],
        shared: tuple[str, str] | None = None,
        memory: str = "cpu",
    ) -> None:
        """Run the session once, to find what only running it tells: output shapes, and whether it runs.

        Args:
            session: All its input shapes are known.
            device: What it was built for.
            saved: The model to write, on demand: a session that reads it needs no optimiser.
            shared: An input and an output that are to share their memory while the engine is timed.
            memory: Where tensors lie, in ONNX Runtime's words.

        Raises:
            ModelError: The session does not run, or a shape is open.
        """
        self._session, self._device, self._saved, self._shared = session, device, saved, shared
        self._memory = memory
        self._feeds = _random_feeds(session)
        self.inputs: Mapping[str, Shape] = {name: feed.shape for name, feed in self._feeds.items()}
        self._results = self.run(self._feeds)
        self.outputs: Mapping[str, Shape] = {name: result.shape for name, result in self._results.items()}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute the outputs; see ``Engine.run``."""
        names = [output.name for output in self._session.get_outputs()]
        with _model_errors("ONNX Runtime cannot run the model on these inputs"):
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs; see ``Engine.time``. The inputs are seeded random numbers."""
        binding, run, clock = self._binding, self._session.run_with_iobinding, perf_counter_ns
        times = np.empty(repeats, np.int64)
        for index in range(repeats):
            begin = clock()
            run(binding)
            times[index] = clock() - begin
        return times

    def save(self, path: Path) -> None:
        """Write the optimised model."""
        files.write_bytes(path, self._saved().SerializeToString())

    def describe(self) -> Device:
        """The device the engine was built for."""
        return self._device

    def layout_conversions(self) -> tuple[str, ...]:
        """The reorders into and out of the blocked layout, and the transpositions, of the optimised graph."""
        return tuple(node.op_type for node in self._saved().graph.node if node.op_type in _REORDERS)

    @cached_property
    def _binding(self) -> ort.IOBinding:
        binding, place = self._session.io_binding(), self._memory
        feeds = {name: ort.OrtValue.ortvalue_from_numpy(feed, place, 0) for name, feed in self._feeds.items()}
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        for name, result in self._results.items():
            value = ort.OrtValue.ortvalue_from_numpy(result, place, 0)
            if self._shared is not None and self._shared[1] == name:
                value = feeds[self._shared[0]]
            binding.bind_ortvalue_output(name, value)
        return binding


@contextmanager
def _model_errors(what: str) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        raise ModelError(
            f"{what}: {said(error)}", hint="if it is no damaged file, another --runtime may know what this one lacks"
        ) from error


def _session_options(options: BuildOptions, *, optimise: bool) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = options.threads
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    level = ort.GraphOptimizationLevel
    settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    settings.log_severity_level = 3
    if options.threads == 1:
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return settings


def _random_feeds(session: ort.InferenceSession) -> dict[str, Array]:
    generator = np.random.default_rng(0)
    return {value.name: _random_feed(value, generator) for value in session.get_inputs()}


def _random_feed(value: ort.NodeArg, generator: np.random.Generator) -> Array:
    if value.type not in _DTYPES or not all(isinstance(size, int) for size in value.shape):
        raise ModelError(f"input {value.name!r} is {value.type} of shape {value.shape}, not a tensor of fixed shape")
    dtype = _DTYPES[value.type]
    # Floats as activations are; whole numbers that are an index of anything.
    try:
        drawn = generator.standard_normal(value.shape) if np.issubdtype(dtype, np.floating) else np.zeros(value.shape)
        return drawn.astype(dtype)
    except (MemoryError, ValueError) as error:
        raise ModelError(f"input {value.name!r} of shape {value.shape} cannot be made: {said(error)}") from error
