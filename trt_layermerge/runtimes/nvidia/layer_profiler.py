"""A profiler for NVIDIA's libraries that keeps the time of every layer in every run."""

from __future__ import annotations

from types import ModuleType
from typing import Any


def layer_profiler(library: ModuleType) -> Any:
    """A profiler of a library, whose ``times`` are those of each layer in ms, by name, a number a run."""
    base = library.IProfiler

    class Layers(base):  # type: ignore[misc, valid-type, unused-ignore]
        """Called by the library behind each run."""

        def __init__(self) -> None:
            base.__init__(self)
            self.times: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            """Keep a time."""
            self.times.setdefault(layer_name, []).append(float(ms))

    return Layers()
