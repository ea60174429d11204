"""What builders for NVIDIA's GPUs, and timings on one, are told besides the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.errors import UsageError
from trt_layermerge.runtimes.builder_settings import BuilderSettings, builder_setting
from trt_layermerge.runtimes.nvidia.build_routes import build_routes


@dataclass(frozen=True)
class GpuSettings(BuilderSettings):
    """What computing and timing on a GPU are told besides the model.

    Attributes:
        tf32: Whether float32 convolutions may round to TF32 on GPUs that have it; Turing has not.
        cuda_graph: Time a captured CUDA graph, as a deployment that cares would run the engine.
        lock_clocks_mhz: Clock rate to hold while measuring; ``None`` to leave it to the driver.
    """

    tf32: bool = builder_setting(False, "--tf32", "let float32 convolutions round to TF32.")
    cuda_graph: bool = builder_setting(
        True, "--cuda-graph", "time captured CUDA graphs, as a deployment would run the engine."
    )
    lock_clocks_mhz: int | None = builder_setting(
        None, "--lock-clocks", "hold the GPU at this clock rate while measuring.", metavar="MHZ", least=1
    )


@dataclass(frozen=True)
class CompilerSettings(GpuSettings):
    """What NVIDIA's builders are told besides the model.

    Attributes:
        workspace_mib: Scratch memory that a tactic may take, in MiB; ``None`` for all that the GPU has.
        optimization_level: Of the builder, 0..5; ``None`` for the library's own.
        build_seconds: Time limit of one build.
    """

    workspace_mib: int | None = builder_setting(
        None, "--workspace", "most scratch memory that one layer may take.", metavar="MiB", least=1
    )
    optimization_level: int | None = builder_setting(
        None, "--optimization-level", "how hard the builder tries, 0 to 5.", least=0, most=5
    )
    build_seconds: float = builder_setting(
        600.0, "--build-timeout", "give up building one engine after that.", metavar="SECONDS", least=0
    )

    @property
    def workspace_bytes(self) -> int | None:
        """The scratch memory in bytes, as builders take it."""
        return None if self.workspace_mib is None else self.workspace_mib * 2**20


@dataclass(frozen=True)
class TensorRtSettings(CompilerSettings):
    """What TensorRT's builder is told besides the model.

    Attributes:
        timing_cache: File of the builder's timing cache; ``None`` for one in the user's cache folder.
        cache_only: Choose tactics by what that file holds and by nothing else; it is not written.
        build_route: The compiler's knobs that differ from their defaults, such as ``-slice_fusion=off``.
        tried_routes: What else is tried for the engines that a job ends with, such as ``-slice_fusion=[on|off]``.
    """

    timing_cache: Path | None = builder_setting(
        None, "--timing-cache", "keep what the builder timed in this file.", usual="one per device"
    )
    cache_only: bool = builder_setting(False, "--cache-only", "replay --timing-cache; what it lacks is exit code 9.")
    build_route: str = builder_setting(
        "", "--build-route", "knobs of the compiler, 11.1 on.", metavar="KNOBS", usual="its own"
    )
    tried_routes: str = builder_setting(
        "",
        "--try-routes",
        "compress: knobs that are tried for both final engines, as -knob=[a|b].",
        metavar="KNOBS",
        usual="none",
    )

    def __post_init__(self) -> None:
        """Refuse to replay what is not named, or would not be heeded.

        Raises:
            UsageError: That is asked for.
        """
        super().__post_init__()
        build_routes(self.tried_routes)
        if self.cache_only and self.timing_cache is None:
            raise UsageError(
                "--cache-only replays a timing cache, and none is named",
                hint="pass --timing-cache FILE; the same command without --cache-only fills it",
            )
        if self.cache_only and self.optimization_level == 0:
            raise UsageError(
                "--cache-only replays a timing cache, and at --optimization-level 0 TensorRT heeds none",
                hint="pass level 1 or higher",
            )
