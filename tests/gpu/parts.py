"""The parts of the GPU tests: what each needs, and why it cannot run here where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """Tests that need the same things.

    Attributes:
        name: As ``pytest.mark.gpu(name)`` has it.
        needs: What it needs, in words.
        look: Why it cannot run here; ``None`` where it can.
    """

    name: str
    needs: str
    look: Callable[[], str | None]

    @property
    def file(self) -> Path:
        """Where its tests are."""
        return HERE / f"test_{self.name.replace('-', '_')}.py"

    def lacking(self) -> str | None:
        """Why it cannot run here, whatever may be missing; ``None`` where it can."""
        try:
            if lacking := self.look():
                return lacking
            import trt_layermerge.pipeline.session  # noqa: F401  # with all that the package itself needs
        except ImportError as error:  # of a package that this one needs: nothing was installed but what is told
            return f"{error.name or error} is not installed"
        return None


def _torch() -> str | None:
    import torch

    return None if torch.cuda.is_available() else f"torch {torch.__version__} sees no GPU"


def _driver() -> str | None:
    from trt_layermerge.runtimes.nvidia.cuda import missing_driver

    return next((error.message for error in missing_driver()), None)


def _cuda() -> str | None:
    from trt_layermerge.runtimes.nvidia.cuda import has_cuda_bindings

    return _driver() if has_cuda_bindings() else "cuda-bindings is not installed"


def _rtx() -> str | None:
    from trt_layermerge.runtimes.base import is_installed
    from trt_layermerge.runtimes.nvidia.cuda import driver
    from trt_layermerge.runtimes.nvidia.rtx_plan import TARGETS

    if not is_installed("tensorrt_rtx"):
        return "tensorrt_rtx is not installed"
    if lacking := _cuda():
        return lacking
    there = driver()
    if f"sm{there.compute_capability.replace('.', '')}" in TARGETS:
        return None
    return f"TensorRT-RTX compiles for no {there.device}, compute capability {there.compute_capability}"


def _tensorrt() -> str | None:
    from trt_layermerge.runtimes.registry import runtime_kind

    return "; ".join(error.message for error in runtime_kind("tensorrt").missing()) or None


PARTS = (
    Part("torch", "torch and a GPU that it sees", _torch),
    Part("cuda", "cuda-bindings and NVML", _cuda),
    Part("tensorrt-rtx", "TensorRT-RTX, and a card that it compiles for", _rtx),
    Part("tensorrt", "TensorRT", _tensorrt),
)
