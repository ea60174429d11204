"""What is told of an engine in the files of trtexec: times of its runs, times of its layers, what its layers are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.errors import UsageError
from trt_layermerge.latency.trtexec_exports import write_layer_infos, write_layer_times, write_run_times
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import require_running

RUNS = 200


@dataclass(frozen=True)
class Exports:
    """Which files are wanted.

    Attributes:
        times: Of ``--exportTimes``.
        profile: Of ``--exportProfile``.
        layer_info: Of ``--exportLayerInfo``.
    """

    times: Path | None = None
    profile: Path | None = None
    layer_info: Path | None = None

    @property
    def any(self) -> bool:
        """Whether one is."""
        return (self.times, self.profile, self.layer_info) != (None, None, None)

    def require(self, runtime: Runtime) -> None:
        """See that engines of a runtime run here, before one is built.

        Raises:
            RuntimeNotAvailableError: They do not, and a file is wanted.
        """
        if self.any:
            require_running(runtime.name)

    def write(self, runtime: Runtime, file: Path, options: BuildOptions) -> None:
        """Write what is wanted of an engine that was built and saved.

        Raises:
            UsageError: The runtime does not tell of layers.
        """
        if not self.any:
            return
        engine = runtime.load(file, options)
        if self.times is not None:
            write_run_times(self.times, engine.time(RUNS))
        if self.profile is not None:
            if (layers := runtime.layer_times(engine, RUNS)) is None:
                raise UsageError(f"--export-profile: runtime {runtime.name} does not tell how long its layers take")
            write_layer_times(self.profile, layers)
        if self.layer_info is not None:
            if (told := runtime.layer_information(engine)) is None:
                raise UsageError(f"--export-layer-info: runtime {runtime.name} does not tell what its layers are")
            write_layer_infos(self.layer_info, told)
