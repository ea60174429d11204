"""The kind ``tensorrt``: engines for the NVIDIA GPU of this machine, timed on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.base import (
    BuildOptions,
    Device,
    Runtime,
    RuntimeKind,
    Shape,
    TritonBackend,
    is_installed,
)
from trt_layermerge.runtimes.builder_settings import BuilderSettings
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings
from trt_layermerge.runtimes.nvidia.cuda import missing_binding, missing_driver
from trt_layermerge.runtimes.nvidia.library import TENSORRT, version_of
from trt_layermerge.runtimes.nvidia.loading_script import loading_script
from trt_layermerge.runtimes.nvidia.timing_cache import default_path
from trt_layermerge.runtimes.nvidia.trtexec import trtexec


class TensorRtKind(RuntimeKind):
    """TensorRT, 10.9 to 11."""

    name: ClassVar[str] = "tensorrt"
    purpose: ClassVar[str] = "engines for this machine's GPU"
    packages: ClassVar[tuple[str, ...]] = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
    times_amid_network: ClassVar[bool] = True
    batch_ranges: ClassVar[bool] = True
    settings: ClassVar[type[BuilderSettings]] = TensorRtSettings
    triton: ClassVar[TritonBackend | None] = TritonBackend("tensorrt", "model.plan")
    deepstream: ClassVar[bool] = True

    def open(self, target: str | None = None) -> Runtime:
        """Load TensorRT, where a driver was seen.

        Raises:
            RuntimeNotAvailableError: It is missing or too old.
        """
        from trt_layermerge.runtimes.nvidia.trt_runtime import TensorRT

        return TensorRT(self)

    def found(self) -> str:
        """Its version."""
        return version_of(TENSORRT)

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The library, the driver, and a binding of CUDA."""
        lacking = [] if is_installed("tensorrt") else ["the package tensorrt is not installed"]
        first = [RuntimeNotAvailableError(what, hint=TENSORRT.install) for what in lacking]
        return [*first, *missing_driver(), *missing_binding()]

    def timing_cache(self, device: Device, settings: BuilderSettings) -> Path:
        """The file that the settings name, else one of the device and the release."""
        given = TensorRtSettings.of(settings).timing_cache
        return given or default_path(device.name, str(device.compute_capability), f"tensorrt {device.runtime_version}")

    def benchmark_command(self, model: Path, options: BuildOptions, shapes: Mapping[str, Shape]) -> str:
        """NVIDIA's trtexec."""
        return trtexec(model, options, shapes)

    def python_lines(self, engine: str, inputs: Mapping[str, tuple[Shape, str]], device: Device) -> list[str]:
        """TensorRT with tensors of torch."""
        return loading_script("tensorrt", engine, inputs)


KIND = TensorRtKind()
