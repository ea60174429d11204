"""What a GPU says about its own condition: clock rate, temperature, power, and why it holds itself back.

NVML comes with the driver; nvidia-ml-py speaks to it and is optional. Without it a GPU is timed all the same, and its
profile says that its clocks were not told. Has read clock, temperature, power and reasons off an H200; no clock was
ever locked by us.
"""

from __future__ import annotations

import weakref
from typing import Any

from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.extras import install_hint
from trt_layermerge.runtimes.base import Condition, is_installed

_HELD_BACK = {
    "nvmlClocksEventReasonHwSlowdown": "hardware slowdown",
    "nvmlClocksEventReasonSwThermalSlowdown": "too hot (software)",
    "nvmlClocksEventReasonHwThermalSlowdown": "too hot (hardware)",
    "nvmlClocksEventReasonHwPowerBrakeSlowdown": "power brake",
}
"""Reasons under which a GPU is slower than it is; the power cap is not among them: a loaded GPU is always at it."""


def open_nvml(pci_bus: str) -> Nvml | None:
    """NVML's view of a GPU; ``None`` where nvidia-ml-py is not installed or NVML does not answer."""
    if not is_installed("pynvml"):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        return Nvml(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(pci_bus))
    except pynvml.NVMLError:
        return None


def hold_clocks(gpu: Nvml | None, mhz: int | None) -> None:
    """Hold a GPU's clock rate, where that is asked for.

    Raises:
        RuntimeNotAvailableError: It is, and NVML is not here, or the clock rate cannot be held.
    """
    if mhz is None:
        return
    if gpu is None:
        raise RuntimeNotAvailableError(
            "the GPU's clock rate cannot be locked without NVML", hint=install_hint("tensorrt", "nvidia-ml-py")
        )
    gpu.lock_clocks(mhz)


class Nvml:
    """One GPU as NVML sees it. ``open_nvml`` makes it."""

    def __init__(self, library: Any, handle: Any) -> None:
        """Wrap a handle."""
        self._library, self._handle = library, handle
        self._locked: int | None = None

    @property
    def driver(self) -> str:
        """Version of the driver."""
        version = self._library.nvmlSystemGetDriverVersion()
        return version.decode() if isinstance(version, bytes) else str(version)

    @property
    def clocks(self) -> str:
        """Who decides on the clock rate, in words."""
        return "by the driver" if self._locked is None else f"locked at {self._locked} MHz"

    def condition(self) -> Condition:
        """The GPU's condition now. What a board does not tell is left open; consumer cards leave out some."""
        nvml, handle = self._library, self._handle
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
        milliwatts = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        return Condition(
            clock_mhz=self._ask(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if milliwatts is None else milliwatts / 1000,
            held_back=tuple(words for name, words in _HELD_BACK.items() if reasons & getattr(nvml, name)),
        )

    def lock_clocks(self, mhz: int) -> None:
        """Hold the clock rate until this object goes.

        Raises:
            RuntimeNotAvailableError: This user may not, or this board cannot.
        """
        nvml = self._library
        try:
            nvml.nvmlDeviceSetGpuLockedClocks(self._handle, mhz, mhz)
        except nvml.NVMLError as error:
            raise RuntimeNotAvailableError(
                f"the GPU's clock rate cannot be locked at {mhz} MHz: {error}",
                hint="it takes an administrator: sudo nvidia-smi --lock-gpu-clocks; or leave --lock-clocks out",
            ) from error
        self._locked = mhz
        weakref.finalize(self, nvml.nvmlDeviceResetGpuLockedClocks, self._handle)

    def _ask(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._library.NVMLError:
            return None
