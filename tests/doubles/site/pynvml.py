"""A double of nvidia-ml-py: one GPU, in the condition that the settings tell."""

from __future__ import annotations

from double_settings import setting

NVML_CLOCK_SM = 1
NVML_TEMPERATURE_GPU = 0
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_LIBRARY_NOT_FOUND = 12
nvmlClocksEventReasonHwSlowdown = 0x8
nvmlClocksEventReasonSwThermalSlowdown = 0x20
nvmlClocksEventReasonHwThermalSlowdown = 0x40
nvmlClocksEventReasonHwPowerBrakeSlowdown = 0x80

_WORDS = {3: "Not Supported", 4: "Insufficient Permissions", 12: "NVML Shared Library Not Found"}


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _WORDS[self.value]


def nvmlInit() -> None:
    if not setting("nvml"):
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)


def nvmlShutdown() -> None:
    return None


def nvmlSystemGetDriverVersion() -> str:
    return "580.00"


def nvmlDeviceGetHandleByPciBusId(pciBusId: str) -> object:
    return pciBusId


def _told(name: str) -> int:
    value = setting(name)
    if value is None:
        raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
    return int(value)


def nvmlDeviceGetClockInfo(handle: object, type: int) -> int:
    return _told("clock_mhz")


def nvmlDeviceGetTemperature(handle: object, sensor: int) -> int:
    return _told("temperature_c")


def nvmlDeviceGetPowerUsage(handle: object) -> int:
    return _told("power_mw")


def nvmlDeviceGetCurrentClocksEventReasons(handle: object) -> int:
    return _told("reasons")


def nvmlDeviceSetGpuLockedClocks(handle: object, minGpuClockMHz: int, maxGpuClockMHz: int) -> None:
    if not setting("may_lock_clocks"):
        raise NVMLError(NVML_ERROR_NO_PERMISSION)


def nvmlDeviceResetGpuLockedClocks(handle: object) -> None:
    return None
