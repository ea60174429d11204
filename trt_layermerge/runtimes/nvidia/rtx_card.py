"""TensorRT-RTX on the card that is here: its plans loaded, their kernels compiled, run and timed.

A plan holds no kernels for the card yet: the library compiles them just in time, when a context is made and first used,
and keeps them in a runtime cache. All of that is over before anything is timed: specialisation for dynamic shapes is
eager, not in the background, and every engine runs once when it is made. The cache lies in the user's cache folder, one
file for each card and version; its hash is in the manifest of what is delivered. It is in no profile's key: it grows
with every engine, and holds what the library would compile again, not what it measured.

Never run on a GPU by us: every name and signature is checked against the genuine bindings, behaviour on a double.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import tensorrt_rtx as rtx

from trt_layermerge import files
from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.base import BuildOptions, Condition, Device
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings
from trt_layermerge.runtimes.nvidia.cuda import Cuda, driver, open_cuda
from trt_layermerge.runtimes.nvidia.error_logger import error_logger
from trt_layermerge.runtimes.nvidia.gpu_timer import timing_in_words
from trt_layermerge.runtimes.nvidia.layer_profiler import layer_profiler
from trt_layermerge.runtimes.nvidia.nvml import hold_clocks, open_nvml
from trt_layermerge.runtimes.nvidia.timing_cache import default_path, locked
from trt_layermerge.runtimes.nvidia.trt_engine import EngineWords, TensorRTEngine

if TYPE_CHECKING:  # what the engine is written for
    import tensorrt as trt

_AMID = ", inputs and outputs in any format"


def runtime_cache_path(device: str, compute_capability: str, version: str) -> Path:
    """Where the kernels that the library compiled for a card are kept."""
    return default_path(device, compute_capability, f"tensorrt-rtx {version}", "kernels")


class RtxCard:
    """The first GPU of this machine, for plans that were compiled for its compute capability."""

    def __init__(self) -> None:
        """Look for the driver.

        Raises:
            RuntimeNotAvailableError: There is none.
        """
        self._driver = driver()
        self._nvml = open_nvml(self._driver.pci_bus)

    @cached_property
    def _cuda(self) -> Cuda:
        return open_cuda()

    def describe(self, runtime: str, options: BuildOptions, settings: str) -> Device:
        """The card, as engines built with these options see it."""
        told = CompilerSettings.of(options.settings)
        hold_clocks(self._nvml, told.lock_clocks_mhz)
        return Device(
            name=self._driver.device,
            runtime=runtime,
            runtime_version=rtx.__version__,
            driver=self._driver.version,
            precision=options.precision,
            threads=options.threads,
            timing=timing_in_words(told, self._cuda.name, _AMID if options.isolated else ""),
            clocks="not told" if self._nvml is None else self._nvml.clocks,
            settings=f"{settings}, kernels compiled before timing",
            simulated=bool(getattr(rtx, "SIMULATED", False)),  # a double says so of itself
            compute_capability=self._driver.compute_capability,
        )

    def condition(self) -> Condition | None:
        """How the card is now; ``None`` without NVML."""
        return None if self._nvml is None else self._nvml.condition()

    def engine(self, plan: bytes, device: Device, options: BuildOptions) -> TensorRTEngine:
        """Load a plan, and let all its kernels be compiled.

        Raises:
            ModelError: The library cannot load it, or has no room for it.
        """
        logger = error_logger(rtx)
        runtime = rtx.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ModelError(f"TensorRT-RTX {rtx.__version__} cannot load the engine on this card: {logger.last}")
        config = engine.create_runtime_config()
        config.cuda_graph_strategy = rtx.CudaGraphStrategy.DISABLED  # graphs are captured by us, as for TensorRT
        eager = rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        cache = config.create_runtime_cache()
        path = runtime_cache_path(device.name, self._driver.compute_capability, rtx.__version__)
        known = path.read_bytes() if path.is_file() else b""
        if known:
            cache.deserialize(known)  # of another driver it is refused, and begun anew
        config.set_runtime_cache(cache)
        words = EngineWords(
            rtx.TensorIOMode.INPUT, rtx.LayerInformationFormat.JSON, rtx.nptype, lambda: layer_profiler(rtx)
        )
        context = engine.create_execution_context(runtime_config=config)
        theirs = cast("trt.ICudaEngine", engine), cast("trt.IExecutionContext | None", context)
        made = TensorRTEngine(*theirs, words, device, self._cuda, options, plan)
        made.owners = (runtime, logger, config, cache)
        made.warm_up()
        if (compiled := bytes(cache.serialize())) != known:
            with locked(path):  # another process may have written as well; a kernel lost is compiled again
                files.write_bytes(path, compiled)
        return made
