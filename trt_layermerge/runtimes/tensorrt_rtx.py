"""The kind ``tensorrt-rtx``: NVIDIA's compiler, ahead of time, for a GPU that need not be here; runs where it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.base import Device, Runtime, RuntimeKind, Shape, is_installed
from trt_layermerge.runtimes.builder_settings import BuilderSettings
from trt_layermerge.runtimes.nvidia import cuda
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings
from trt_layermerge.runtimes.nvidia.cuda import missing_binding, missing_driver
from trt_layermerge.runtimes.nvidia.library import TENSORRT_RTX, version_of
from trt_layermerge.runtimes.nvidia.loading_script import loading_script
from trt_layermerge.runtimes.nvidia.rtx_plan import TARGETS


class TensorRtRtxKind(RuntimeKind):
    """TensorRT-RTX, from 1.7.1 on."""

    name: ClassVar[str] = "tensorrt-rtx"
    purpose: ClassVar[str] = "engines for SM75 and newer, compiled without a GPU, run and timed on one"
    packages: ClassVar[tuple[str, ...]] = ("tensorrt-rtx", "tensorrt-rtx-cu12")
    times_amid_network: ClassVar[bool] = True
    batch_ranges: ClassVar[bool] = True
    settings: ClassVar[type[BuilderSettings]] = CompilerSettings
    targets: ClassVar[tuple[str, ...]] = TARGETS

    def open(self, target: str | None) -> Runtime:
        """Load the compiler.

        Raises:
            RuntimeNotAvailableError: It is missing or too old.
        """
        from trt_layermerge.runtimes.nvidia.rtx_runtime import TensorRtRtx

        return TensorRtRtx(self, target or self.usual_target())

    def usual_target(self) -> str:
        """That of the GPU that is here, if it is one; else the first."""
        here = _target_here()
        return here if here in self.targets else self.targets[0]

    def found(self) -> str:
        """Its version."""
        return version_of(TENSORRT_RTX)

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The library."""
        if is_installed(TENSORRT_RTX.module):
            return []
        return [RuntimeNotAvailableError("TensorRT-RTX is not installed", hint=TENSORRT_RTX.install)]

    def missing_to_run(self, target: str | None) -> list[RuntimeNotAvailableError]:
        """The library, the driver, a binding of CUDA, and the card that engines are compiled for."""
        missing = [*self.missing(), *missing_driver(), *missing_binding()]
        here, wanted = _target_here(), target or self.usual_target()
        if here is not None and here != wanted:
            missing.append(
                RuntimeNotAvailableError(
                    f"engines for {wanted} do not run on the GPU that is here, which is {here}",
                    hint=f"pass --runtime {self.name}:{here}" if here in self.targets else "--runtime tensorrt",
                )
            )
        return missing

    def python_lines(self, engine: str, inputs: Mapping[str, tuple[Shape, str]], device: Device) -> list[str]:
        """TensorRT-RTX with tensors of torch."""
        return loading_script(TENSORRT_RTX.module, engine, inputs)

    def timing_cache(self, device: Device, settings: BuilderSettings) -> Path:
        """The kernels that were compiled on the card."""
        from trt_layermerge.runtimes.nvidia.rtx_card import runtime_cache_path

        return runtime_cache_path(device.name, str(device.compute_capability), device.runtime_version)


def _target_here() -> str | None:
    """The compute capability of the GPU that is here, as targets are called."""
    return None if missing_driver() else f"sm{cuda.driver().compute_capability.replace('.', '')}"


KIND = TensorRtRtxKind()
