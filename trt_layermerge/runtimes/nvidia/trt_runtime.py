"""TensorRT, 10.9 to 11: building engines for the NVIDIA GPU of this machine; ``trt_engine`` runs and times them.

Networks are strongly typed: precision lives in the ONNX graph, and what the engine makes of it is read back from its
inspector and compared. Engines are built in processes of their own (``building``) and run in this one.

Never run on a GPU by us: every name and signature is checked against the genuine bindings, behaviour on a double.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import onnx
import tensorrt as trt

from trt_layermerge.errors import ModelError
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.base import (
    BuildOptions,
    Condition,
    Device,
    Engine,
    Model,
    Nanoseconds,
    Runtime,
    RuntimeKind,
    Shape,
    require_computed,
)
from trt_layermerge.runtimes.models import shape_ranges, shapes_of, with_shapes
from trt_layermerge.runtimes.nvidia import timing_cache
from trt_layermerge.runtimes.nvidia.build_routes import build_routes
from trt_layermerge.runtimes.nvidia.building import BuildRequest, build
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.nvidia.cuda import Cuda, driver, open_cuda
from trt_layermerge.runtimes.nvidia.error_logger import error_logger
from trt_layermerge.runtimes.nvidia.gpu_timer import timing_in_words
from trt_layermerge.runtimes.nvidia.layer_profiler import layer_profiler
from trt_layermerge.runtimes.nvidia.library import load_library
from trt_layermerge.runtimes.nvidia.nvml import hold_clocks, open_nvml
from trt_layermerge.runtimes.nvidia.trt_engine import EngineWords, TensorRTEngine

_ANY_FORMAT = ", inputs and outputs in any format"

_SIMULATED = bool(getattr(trt, "SIMULATED", False))  # a double says so of itself; the library has no such name


class TensorRT(Runtime):
    """Builds engines with TensorRT, on the first GPU of this machine."""

    tells_layers: ClassVar[bool] = True

    def __init__(self, kind: RuntimeKind) -> None:
        """Look for the driver and the libraries.

        Raises:
            RuntimeNotAvailableError: One is missing, or TensorRT is too old.
        """
        self.kind = kind
        load_library("tensorrt")
        self._driver = driver()
        self._nvml = open_nvml(self._driver.pci_bus)
        self._replayed: dict[Path, str] = {}

    @cached_property
    def _cuda(self) -> Cuda:
        return open_cuda()

    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""
        settings = TensorRtSettings.of(options.settings)
        hold_clocks(self._nvml, settings.lock_clocks_mhz)
        return Device(
            name=self._driver.device,
            runtime=self.name,
            runtime_version=trt.__version__,
            driver=self._driver.version,
            precision=options.precision,
            threads=options.threads,
            timing=timing_in_words(settings, self._cuda.name, _ANY_FORMAT if options.isolated else ""),
            clocks="not told" if self._nvml is None else self._nvml.clocks,
            settings=self._in_words(settings),
            simulated=_SIMULATED,
            compute_capability=self._driver.compute_capability,
        )

    def condition(self) -> Condition | None:
        """How the GPU is now; ``None`` without NVML."""
        return None if self._nvml is None else self._nvml.condition()

    def launches(self, engine: Engine) -> int | None:
        """The layers that the inspector tells of: a few launch several kernels, or none."""
        return len(engine.layers()) if isinstance(engine, TensorRTEngine) else None

    def host_times(self, engine: Engine, repeats: int) -> Nanoseconds | None:
        """By the host's clock, copies to and from the GPU included."""
        return engine.time_host(repeats) if isinstance(engine, TensorRTEngine) else None

    def layer_times(self, engine: Engine, repeats: int) -> Mapping[str, Sequence[float]]:
        """As the library's own profiler is told, of the same engine loaded once more."""
        if not isinstance(engine, TensorRTEngine):
            return super().layer_times(engine, repeats)
        return self._engine(engine.plan, engine.options, "the engine that was just built").time_layers(repeats)

    def layer_information(self, engine: Engine) -> str:
        """What the inspector tells."""
        return engine.information() if isinstance(engine, TensorRTEngine) else super().layer_information(engine)

    def variations(self, options: BuildOptions) -> Mapping[str, BuildOptions]:
        """Build routes: each knob that is to be tried, alone with each of its values, beside those that are fixed."""
        settings = TensorRtSettings.of(options.settings)
        fixed, tried = build_routes(settings.tried_routes)
        base = " ".join([settings.build_route, *fixed]).strip()
        routes = [f"{base} {knob}".strip() for knob in tried]
        return {route: replace(options, settings=replace(settings, build_route=route)) for route in routes}

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
            request = self._request(source, plan, profile, options)
            build(request, TensorRtSettings.of(options.settings).build_seconds)
            engine = self._engine(plan.read_bytes(), options, "the engine that was just built")
        require_computed(engine.convolution_precisions(), options.precision, "TensorRT")
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
        settings = TensorRtSettings.of(options.settings)
        cache = settings.timing_cache or timing_cache.default_path(
            self._driver.device, self._driver.compute_capability, f"tensorrt {trt.__version__}"
        )
        replayed = self._digest(settings)
        return BuildRequest(
            library="tensorrt",
            model=model,
            plan=plan,
            shapes=profile,
            workspace_bytes=settings.workspace_bytes,
            optimization_level=settings.optimization_level,
            tf32=settings.tf32,
            timing_cache=None if options.anew and replayed is None else cache,
            replayed=replayed,
            route=settings.build_route,
            any_format=options.isolated,
        )

    def _digest(self, settings: TensorRtSettings) -> str | None:
        """SHA-256 of the timing cache that is replayed, as it was at first; ``None`` where builds add to it."""
        if settings.timing_cache is None or not settings.cache_only:
            return None
        if settings.timing_cache not in self._replayed:
            self._replayed[settings.timing_cache] = timing_cache.cache_digest(settings.timing_cache)
        return self._replayed[settings.timing_cache]

    def _in_words(self, settings: TensorRtSettings) -> str:
        """What else of a build decides latencies; a part of a profile's key."""
        workspace = "unlimited" if settings.workspace_mib is None else f"{settings.workspace_mib} MiB"
        level = "the library's" if settings.optimization_level is None else settings.optimization_level
        words = f"optimisation level {level}, workspace {workspace}, TF32 {'on' if settings.tf32 else 'off'}"
        digest = self._digest(settings)
        words += "" if digest is None else f", tactics of timing cache {digest[:16]} alone"
        return words + (f", build route {settings.build_route}" if settings.build_route else "")

    def _engine(self, plan: bytes, options: BuildOptions, where: str) -> TensorRTEngine:
        logger = error_logger(trt)
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan) if plan else None
        if engine is None:
            raise ModelError(f"{where} is no engine of TensorRT {trt.__version__} for this GPU: {logger.last}")
        words = EngineWords(
            trt.TensorIOMode.INPUT, trt.LayerInformationFormat.JSON, trt.nptype, lambda: layer_profiler(trt)
        )
        context = engine.create_execution_context()
        made = TensorRTEngine(engine, context, words, self.describe(options), self._cuda, options, plan)
        made.owners = (runtime, logger)
        return made
