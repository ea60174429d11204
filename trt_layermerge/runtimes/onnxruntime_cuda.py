"""The kind ``onnxruntime-cuda``: ONNX Runtime on an NVIDIA GPU; never the CPU in its place."""

from __future__ import annotations

from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.nvidia.cuda import missing_driver
from trt_layermerge.runtimes.onnxruntime import OnnxRuntimeKind


class OnnxRuntimeCudaKind(OnnxRuntimeKind):
    """ONNX Runtime with its CUDA provider."""

    name: ClassVar[str] = "onnxruntime-cuda"
    purpose: ClassVar[str] = "timing on a GPU without TensorRT (optional)"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime-gpu",)
    provider: ClassVar[str] = "CUDAExecutionProvider"
    memory: ClassVar[str] = "cuda"
    install: ClassVar[str] = (
        "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install --no-deps onnxruntime-gpu "
        "('onnxruntime-gpu<1.27' for CUDA 12): the two packages write over each other's files"
    )

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The package, and the driver."""
        return [*super().missing(), *missing_driver()]


KIND = OnnxRuntimeCudaKind()
