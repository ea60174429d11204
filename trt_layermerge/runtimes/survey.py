"""What this machine has for running engines, what it lacks, and what to do about each. Libraries are asked with care.

TensorRT may end the process that imports or uses it on a machine that is not fit for it; it is asked in another one.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.runtimes.cuda import Driver, driver, has_cuda_bindings
from trt_layermerge.runtimes.library import Library
from trt_layermerge.runtimes.nvml import open_nvml

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
        _onnxruntime(),
        there if isinstance(there, Finding) else Finding("driver", f"{there.version}, CUDA {there.cuda}", _GPU),
        _device(there),
        _library("TensorRT", "tensorrt", "engines for this machine's GPU", "pip install 'trt_layermerge[tensorrt]'"),
        _binding(),
        _nvml(there),
        _library(
            "TensorRT-RTX",
            "tensorrt_rtx",
            "compiling for SM75 and newer without a GPU",
            "pip install 'trt_layermerge[tensorrt-rtx]'",
        ),
    ]


_GPU = "everything on a GPU"


def _packages() -> Finding:
    found = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "numpy"))
    return Finding("packages", found, "networks, export, planning")


def _onnxruntime() -> Finding:
    fix = "pip install onnxruntime"
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("ONNX Runtime", None, "timing on the CPU", f"{fix} ({error})")
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    return Finding("ONNX Runtime", f"{onnxruntime.__version__}, providers {providers}", "timing on the CPU")


def _driver() -> Driver | Finding:
    try:
        return driver()
    except RuntimeNotAvailableError as error:
        return Finding("driver", None, _GPU, f"{error.message}: {error.hint}")


def _device(there: Driver | Finding) -> Finding:
    if isinstance(there, Finding):
        return Finding("GPU", None, _GPU, "the driver comes first")
    old = tuple(map(int, there.compute_capability.split("."))) < tuple(map(int, TURING.split(".")))
    fix = f"TensorRT 10.9 and newer need compute capability {TURING} or higher" if old else None
    return Finding("GPU", f"{there.device}, compute capability {there.compute_capability}", _GPU, fix)


def _library(title: str, module: Library, use: str, fix: str) -> Finding:
    script = f"from trt_layermerge.runtimes.library import load_library; print(load_library({module!r}).__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        return Finding(title, done.stdout.split()[-1], use)
    if done.returncode < 0:
        return Finding(title, None, use, f"importing it crashes (signal {-done.returncode}); install it anew: {fix}")
    lines = [line for line in done.stderr.splitlines() if "Error: " in line]
    why = lines[-1].split("Error: ", 1)[1] if lines else "it cannot be imported"
    return Finding(title, None, use, f"{why}: {fix}")


def _binding() -> Finding:
    use = "buffers, streams, events and graphs"
    names = [name for name in ("pycuda", "cuda-bindings") if _version(name)]
    if not names:
        return Finding("CUDA binding", None, use, "pip install 'trt_layermerge[tensorrt]'")
    fix = None if has_cuda_bindings() else "pycuda has no CUDA graphs: pip install cuda-bindings"
    return Finding("CUDA binding", ", ".join(f"{name} {_version(name)}" for name in names), use, fix)


def _nvml(there: Driver | Finding) -> Finding:
    use, installed = "clock rates and temperatures beside latencies (optional)", _version("nvidia-ml-py")
    if installed is None:
        return Finding("NVML", None, use, "pip install nvidia-ml-py")
    if isinstance(there, Finding):
        return Finding("NVML", f"nvidia-ml-py {installed}, without a driver to ask", use)
    nvml = open_nvml(there.pci_bus)
    if nvml is None:
        return Finding("NVML", None, use, "NVML does not answer: look at nvidia-smi")
    now = nvml.condition()
    return Finding("NVML", f"nvidia-ml-py {installed}: {now.clock_mhz} MHz, {now.temperature_c} C", use)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
