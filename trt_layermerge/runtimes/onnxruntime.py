"""The kind ``onnxruntime``: ONNX Runtime on the CPU that is everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.base import Device, Runtime, RuntimeKind, Shape, TritonBackend, is_installed


class OnnxRuntimeKind(RuntimeKind):
    """ONNX Runtime with one of its providers.

    Attributes:
        provider: ONNX Runtime's name of it.
        memory: Where its tensors lie, in ONNX Runtime's words.
        install: How to get it.
    """

    name: ClassVar[str] = "onnxruntime"
    purpose: ClassVar[str] = "timing on the CPU"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    times_amid_network: ClassVar[bool] = True
    suffix: ClassVar[str] = ".engine.onnx"  # its engines are ONNX files still
    triton: ClassVar[TritonBackend | None] = TritonBackend("onnxruntime", "model.onnx")
    provider: ClassVar[str] = "CPUExecutionProvider"
    memory: ClassVar[str] = "cpu"
    install: ClassVar[str] = "pip install onnxruntime"

    def open(self, target: str | None = None) -> Runtime:
        """Load ONNX Runtime.

        Raises:
            RuntimeNotAvailableError: It is not installed, or does not have the provider.
        """
        try:
            from trt_layermerge.runtimes.ort.ort_runtime import OnnxRuntime
        except ModuleNotFoundError as error:
            raise RuntimeNotAvailableError(
                f"runtime {self.name!r} needs the package {error.name!r}", hint=self.install
            ) from error
        return OnnxRuntime(self)

    def found(self) -> str:
        """Its version and providers."""
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise RuntimeNotAvailableError(str(error), hint=self.install) from error
        providers = ort.get_available_providers()
        known = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
        if self.provider not in providers:
            raise RuntimeNotAvailableError(
                f"ONNX Runtime {ort.__version__} has no {self.provider} here, only {known}", hint=self.install
            )
        return f"{ort.__version__}, providers {known}"

    def missing(self) -> list[RuntimeNotAvailableError]:
        """The package."""
        if is_installed("onnxruntime"):
            return []
        return [RuntimeNotAvailableError("the package onnxruntime is not installed", hint=self.install)]

    def python_lines(self, engine: str, inputs: Mapping[str, tuple[Shape, str]], device: Device) -> list[str]:
        """A session with the same provider and threads."""
        arrays = [f"    {name!r}: numpy.zeros({shape}, {kind!r})," for name, (shape, kind) in inputs.items()]
        return [
            "from pathlib import Path",
            "",
            "import numpy",
            "import onnxruntime",
            "",
            "options = onnxruntime.SessionOptions()",
            f"options.intra_op_num_threads = {device.threads}",
            f"path = str(Path(__file__).with_name({engine!r}))",
            f"session = onnxruntime.InferenceSession(path, options, providers=[{self.provider!r}])",
            "inputs = {",
            *arrays,
            "}",
            "names = [output.name for output in session.get_outputs()]",
            "outputs = dict(zip(names, session.run(names, inputs)))",
            "print({name: array.shape for name, array in outputs.items()})",
        ]


KIND = OnnxRuntimeKind()
