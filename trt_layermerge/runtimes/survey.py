"""What this machine has for running engines, what it lacks, and what to do about each: the machine, then every kind.

Libraries are asked with care: importing one on a machine that is not fit for it may end the process, and a kind asks in
another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.extras import install_hint, installed_version
from trt_layermerge.runtimes import registry
from trt_layermerge.runtimes.nvidia.cuda import CudaDriver, driver, has_cuda_bindings
from trt_layermerge.runtimes.nvidia.nvml import open_nvml

TURING = "7.5"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        what: Its name.
        found: What is here, in words; ``None`` where it is missing.
        use: What it is for.
        fix: What to do where it is missing, or not as it should be; ``None`` where there is nothing to do.
    """

    what: str
    found: str | None
    use: str
    fix: str | None = None


def survey() -> list[Finding]:
    """Look for everything that a runtime here may need; nothing raises, what is missing is a finding."""
    there = _driver()
    return [
        _packages(),
        _torch(there),
        there if isinstance(there, Finding) else Finding("driver", f"{there.version}, CUDA {there.cuda}", _GPU),
        _device(there),
        _binding(),
        _nvml(there),
        *map(_kind, registry.runtime_names()),
    ]


_GPU = "everything on a GPU"


def _packages() -> Finding:
    found = ", ".join(f"{name} {version(name)}" for name in ("onnx", "numpy"))
    return Finding("packages", found, "export, planning")


def _torch(there: CudaDriver | Finding) -> Finding:
    """torch, and whether its CUDA is one that the driver has: a newer minor version of the same major one works."""
    import torch

    cuda, use = torch.version.cuda, "networks, importance, fits, training"
    found = f"{torch.__version__}, for {'CPUs alone' if cuda is None else f'CUDA {cuda}'}"
    if cuda is None or isinstance(there, Finding) or _major(cuda) <= _major(there.cuda):
        return Finding("PyTorch", found, use)
    fix = (
        f"its CUDA {cuda} is too new for the driver, {there.version}, which knows {there.cuda}: torch will not see the "
        "GPU. Update the driver to 580 or newer, or install again with --constraint constraints-cuda12.txt"
    )
    return Finding("PyTorch", found, use, fix)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _driver() -> CudaDriver | Finding:
    try:
        return driver()
    except RuntimeNotAvailableError as error:
        return Finding("driver", None, _GPU, f"{error.message}: {error.hint}")


def _device(there: CudaDriver | Finding) -> Finding:
    if isinstance(there, Finding):
        return Finding("GPU", None, _GPU, "the driver comes first")
    old = tuple(map(int, there.compute_capability.split("."))) < tuple(map(int, TURING.split(".")))
    fix = f"TensorRT 10.9 and newer need compute capability {TURING} or higher" if old else None
    return Finding("GPU", f"{there.device}, compute capability {there.compute_capability}", _GPU, fix)


def _binding() -> Finding:
    use = "buffers, streams, events and graphs"
    names = [name for name in ("pycuda", "cuda-bindings") if installed_version(name)]
    if not names:
        return Finding("CUDA binding", None, use, install_hint("tensorrt", "cuda-bindings"))
    fix = None if has_cuda_bindings() else "pycuda has no CUDA graphs: pip install cuda-bindings"
    return Finding("CUDA binding", ", ".join(f"{name} {installed_version(name)}" for name in names), use, fix)


def _nvml(there: CudaDriver | Finding) -> Finding:
    use, installed = "clock rates and temperatures beside latencies (optional)", installed_version("nvidia-ml-py")
    if installed is None:
        return Finding("NVML", None, use, install_hint("tensorrt", "nvidia-ml-py"))
    if isinstance(there, Finding):
        return Finding("NVML", f"nvidia-ml-py {installed}, without a driver to ask", use)
    nvml = open_nvml(there.pci_bus)
    if nvml is None:
        return Finding("NVML", None, use, "NVML does not answer: look at nvidia-smi")
    now = nvml.condition()
    return Finding("NVML", f"nvidia-ml-py {installed}: {now.clock_mhz} MHz, {now.temperature_c} C", use)


def _kind(name: str) -> Finding:
    use = "runtime"
    try:
        kind = registry.runtime_kind(name)
        use = f"runtime: {kind.purpose}"
        return Finding(name, kind.found(), use)
    except RuntimeNotAvailableError as error:
        return Finding(name, None, use, error.message if error.hint is None else f"{error.message}: {error.hint}")
