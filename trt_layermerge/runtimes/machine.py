"""What the machine says about itself; files of the operating system only, no library."""

from __future__ import annotations

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_NVIDIA = Path("/proc/driver/nvidia")


_CPU_IDENTITY = {
    "x86": {"family": "cpu family", "model": "model", "stepping": "stepping"},
    "arm": {name: f"CPU {name}" for name in ("implementer", "part", "variant", "revision")},
}
"""What tells one kind of core from another, by the operating system's names; ``AMD EPYC`` alone is a dozen."""


def cpu_name() -> str:
    """The CPU's model name with what its maker tells kinds apart by.

    Such as ``Intel(R) Xeon(R) Processor, family 6 model 143 stepping 8``; another stepping has latencies of its own.
    """
    name = _field(_CPU_INFO, "model name") or platform.processor() or platform.machine()
    for fields in _CPU_IDENTITY.values():
        found = {word: _field(_CPU_INFO, field) for word, field in fields.items()}
        if told := " ".join(f"{word} {value}" for word, value in found.items() if value is not None):
            return f"{name}, {told}"
    return name


def cpu_clock_policy() -> str:
    """Who decides on the CPU's clock rate, as far as the operating system tells."""
    governor = _text(_GOVERNOR)
    return f"governor {governor.strip()}" if governor else "not told"


def gpu_name() -> str | None:
    """Model name of the first NVIDIA GPU, or ``None`` without one."""
    for information in sorted(_NVIDIA.glob("gpus/*/information")):
        return _field(information, "Model")
    return None


def gpu_driver() -> str | None:
    """Version of the NVIDIA driver, or ``None`` without one."""
    words = (_text(_NVIDIA / "version") or "").split()
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _field(path: Path, name: str) -> str | None:
    """The first ``name : value`` of a file."""
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name and value.strip():
            return value.strip()
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
