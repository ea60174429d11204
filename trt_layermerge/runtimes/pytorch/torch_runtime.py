"""PyTorch as a runtime: the ONNX graph, read by our own importer, as calls of PyTorch's kernels one after the other.

What a user of PyTorch sees who does what its documentation advises for convolutions: channels-last tensors where those
are faster (``layout_of``), no gradients, on a GPU cuDNN's benchmark mode. Nothing is compiled, nothing fused. Norms are
computed where the file has them: the files of a job have none. Floats are as wide as the file says.

Has run on an H200: docs/experiments/gpu.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trt_layermerge.errors import LayerMergeError, ModelError, said
from trt_layermerge.network.device import device_named
from trt_layermerge.network.onnx_import.onnx_graph import read_typed_graph
from trt_layermerge.network.onnx_import.onnx_network import OnnxNetwork
from trt_layermerge.network.onnx_import.size_limits import require_bounded
from trt_layermerge.onnxfile import named_model, read_onnx
from trt_layermerge.runtimes import machine
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
from trt_layermerge.runtimes.models import with_shapes
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.gpu_timer import timing_in_words
from trt_layermerge.runtimes.nvidia.nvml import Nvml, hold_clocks, open_nvml
from trt_layermerge.runtimes.pytorch.kernel_calls import KernelCalls, layout_of
from trt_layermerge.runtimes.pytorch.torch_engine import TorchEngine

_LAYOUTS = {torch.channels_last: "channels-last", torch.contiguous_format: "contiguous"}


class TorchRuntime(Runtime):
    """Runs networks with PyTorch on one device."""

    def __init__(self, kind: RuntimeKind, target: str) -> None:
        """Choose the device.

        Args:
            kind: Whose runtime it is.
            target: ``cpu``, or ``cuda:N``.

        Raises:
            RuntimeNotAvailableError: PyTorch does not see the GPU.
        """
        self.kind, self.target = kind, target
        self._place = device_named(target)
        self._nvml = _nvml(self._place) if self._place.type == "cuda" else None

    @property
    def precisions(self) -> tuple[str, ...]:
        """FP32, and on a GPU FP16: few CPUs compute in halves, and on the others PyTorch converts there and back."""
        return ("fp32",) if self._place.type == "cpu" else ("fp32", "fp16")

    def describe(self, options: BuildOptions) -> Device:
        """The device here, as engines built with these options see it."""
        return (self._cpu if self._place.type == "cpu" else self._gpu)(options)

    def condition(self) -> Condition | None:
        """How the GPU is now; ``None`` on a CPU, and without NVML."""
        return None if self._nvml is None else self._nvml.condition()

    def host_times(self, engine: Engine, repeats: int) -> Nanoseconds | None:
        """By the host's clock, copies to and from the GPU included; on a CPU nothing is copied."""
        if isinstance(engine, TorchEngine) and self._place.type == "cuda":
            return engine.time_host(repeats)
        return None

    def build(self, model: Model, options: BuildOptions, shapes: Mapping[str, Shape] | None = None) -> TorchEngine:
        """Read a model and run it once; see ``Runtime.build``."""
        self.require_precision(options.precision)
        where, proto = named_model(model), with_shapes(read_onnx(model), shapes or {})
        require_bounded(proto, where)
        settings = GpuSettings.of(options.settings)
        try:
            network = OnnxNetwork(read_typed_graph(proto, where), where).eval().requires_grad_(False).to(self._place)
            calls = KernelCalls(network, proto, self._place, options, settings)
        except LayerMergeError:
            raise
        except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
            raise ModelError(f"PyTorch cannot run {where}: {said(error)}") from error
        require_computed(calls.convolution_precisions(), options.precision, "PyTorch")
        return TorchEngine(proto, calls, self.describe(options), settings)

    def load(self, path: Path, options: BuildOptions) -> TorchEngine:
        """Read an engine that ``TorchEngine.save`` wrote: the model."""
        return self.build(path, options)

    def _layout(self, options: BuildOptions) -> str:
        return _LAYOUTS[layout_of(self._place, options, GpuSettings.of(options.settings))]

    def _ends(self, options: BuildOptions) -> str:
        """Said of an engine that meets no change of layout."""
        return f", {self._layout(options)} at both ends" if options.isolated else ""

    def _cpu(self, options: BuildOptions) -> Device:
        return Device(
            name=machine.cpu_name(),
            runtime=self.name,
            runtime_version=torch.__version__,
            driver=None,
            precision=options.precision,
            threads=options.threads,
            timing=f"wall clock of one run{self._ends(options)}",
            clocks=machine.cpu_clock_policy(),
            settings=f"{self._layout(options)}, oneDNN {_onednn()} with {torch.backends.cpu.get_cpu_capability()}"
            f"{_waiting(options.threads)}",
        )

    def _gpu(self, options: BuildOptions) -> Device:
        settings = GpuSettings.of(options.settings)
        hold_clocks(self._nvml, settings.lock_clocks_mhz)
        driver = machine.gpu_driver() or (None if self._nvml is None else self._nvml.driver)
        return Device(
            name=torch.cuda.get_device_name(self._place),
            runtime=self.name,
            runtime_version=torch.__version__,
            driver=driver,
            precision=options.precision,
            threads=options.threads,
            timing=timing_in_words(settings, "torch", self._ends(options)),
            clocks="not told" if self._nvml is None else self._nvml.clocks,
            settings=f"{self._layout(options)}, CUDA {torch.version.cuda}, cuDNN {_cudnn()} in benchmark "
            f"mode, TF32 {'on' if settings.tf32 else 'off'}",
            compute_capability=".".join(map(str, torch.cuda.get_device_capability(self._place))),
        )


def _nvml(device: torch.device) -> Nvml | None:
    found: Any = torch.cuda.get_device_properties(device)  # torch's own stub leaves out where it is
    return open_nvml(f"{found.pci_domain_id:04x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0")


def _waiting(threads: int) -> str:
    """What OpenMP's threads do between two operations, where that is decided: waking them takes time."""
    policy = os.environ.get("OMP_WAIT_POLICY", "").lower()
    return f", waiting threads {policy}" if threads > 1 and policy else ""


def _cudnn() -> int | None:
    """The version of what computes convolutions on a GPU."""
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _onednn() -> str:
    """The version of what computes convolutions on a CPU."""
    match = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return match[1] if match else "of no version that is told"
