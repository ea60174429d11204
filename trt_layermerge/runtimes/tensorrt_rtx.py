"""The kind ``tensorrt-rtx``: NVIDIA's compiler, ahead of time, for a GPU that need not be here."""

from __future__ import annotations

from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.base import BuilderSettings, Runtime, RuntimeKind, is_installed
from trt_layermerge.runtimes.nvidia.compiler_settings import CompilerSettings
from trt_layermerge.runtimes.nvidia.library import TENSORRT_RTX, version_of
from trt_layermerge.runtimes.nvidia.rtx_plan import TARGETS


class TensorRtRtxKind(RuntimeKind):
    """TensorRT-RTX, from 1.7.1 on."""

    name: ClassVar[str] = "tensorrt-rtx"
    purpose: ClassVar[str] = "compiling for SM75 and newer without a GPU"
    times_amid_network: ClassVar[bool] = True
    times: ClassVar[bool] = False  # the device is elsewhere
    batch_ranges: ClassVar[bool] = True
    settings: ClassVar[type[BuilderSettings]] = CompilerSettings
    targets: ClassVar[tuple[str, ...]] = TARGETS

    def open(self, target: str | None) -> Runtime:
        """Load the compiler.

        Raises:
            RuntimeNotAvailableError: It is missing or too old.
        """
        from trt_layermerge.runtimes.nvidia.rtx_runtime import TensorRtRtx

        return TensorRtRtx(self, target or self.targets[0])

    def found(self) -> str:
        """Its version."""
        return version_of(TENSORRT_RTX)

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The library."""
        if is_installed(TENSORRT_RTX.module):
            return []
        return [RuntimeNotAvailableError("TensorRT-RTX is not installed", hint=TENSORRT_RTX.install)]


KIND = TensorRtRtxKind()
