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
        """See that a runtime has what is wanted, before an engine is built.

        Raises:
            RuntimeNotAvailableError: Its engines do not run here.
            UsageError: They do not tell of their layers.
        """
        if self.any:
            require_running(runtime.name)
        if (self.profile or self.layer_info) and not runtime.tells_layers:
            raise UsageError(
                f"--export-profile and --export-layer-info: engines of {runtime.name} do not tell of their layers",
                hint="pass --runtime tensorrt; --export-times is for any runtime that runs here",
            )

    def write(self, runtime: Runtime, file: Path, options: BuildOptions) -> None:
        """Write what is wanted of an engine that was built and saved."""
        if not self.any:
            return
        engine = runtime.load(file, options)
        if self.times is not None:
            write_run_times(self.times, engine.time(RUNS))
        if self.profile is not None:
            write_layer_times(self.profile, runtime.layer_times(engine, RUNS))
        if self.layer_info is not None:
            write_layer_infos(self.layer_info, runtime.layer_information(engine))
