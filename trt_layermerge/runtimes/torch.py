"""The kind ``torch``: PyTorch itself, whose speed-ups the papers report beside TensorRT's."""

from __future__ import annotations

import re
from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.base import Runtime, RuntimeKind, is_installed
from trt_layermerge.runtimes.builder_settings import BuilderSettings
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.cuda import missing_driver


class TorchKind(RuntimeKind):
    """PyTorch in channels-last, on the CPU or on one GPU; settings are heeded on a GPU."""

    name: ClassVar[str] = "torch"
    purpose: ClassVar[str] = "PyTorch itself, without a compiler"
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    times_amid_network: ClassVar[bool] = True
    settings: ClassVar[type[BuilderSettings]] = GpuSettings
    suffix: ClassVar[str] = ".torch.onnx"  # its engines are ONNX files still
    targets: ClassVar[tuple[str, ...]] = ("cpu", "cuda:0")

    def open(self, target: str | None) -> Runtime:
        """Load PyTorch.

        Raises:
            RuntimeNotAvailableError: It does not see the GPU.
        """
        from trt_layermerge.runtimes.pytorch.torch_runtime import TorchRuntime

        return TorchRuntime(self, target or self.usual_target())

    def usual_target(self) -> str:
        """The first GPU, where there is a driver for it; else the CPU."""
        return "cpu" if missing_driver() else "cuda:0"

    def has_target(self, target: str) -> bool:
        """The CPU, or a GPU by its number."""
        return re.fullmatch(r"cpu|cuda:\d+", target) is not None

    def found(self) -> str:
        """Its version, and where it computes."""
        try:
            import torch
        except ImportError as error:
            raise RuntimeNotAvailableError(str(error), hint="pip install torch") from error
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"{torch.__version__}, on {', '.join(['cpu', *(f'cuda:{index}' for index in range(gpus))])}"

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The package."""
        if is_installed("torch"):
            return []
        return [RuntimeNotAvailableError("the package torch is not installed", hint="pip install torch")]


KIND = TorchKind()
