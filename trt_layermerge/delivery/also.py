"""A finished job for another runtime: its engine beside the delivered one, and its speed-up where that runs here.

Such as one compiled ahead of time for a GPU elsewhere, or PyTorch, whose speed-up the papers report beside TensorRT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trt_layermerge.delivery.delivery_signature import SigningKey
from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.policy import MeasurementPolicy
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.runtimes.base import BuildOptions, Shape
from trt_layermerge.runtimes.registry import get_runtime


@dataclass(frozen=True)
class Also:
    """What came of it.

    Attributes:
        runtime: What it was to be built for, such as ``tensorrt-rtx:sm75``.
        engine: Its file, with its manifest beside it; ``None`` where there is none.
        skipped: Why there is none.
        timings: Of both networks, interleaved; ``None`` where that runtime runs nothing here.
        simulated: No device was timed.
        launches: Kernels of one run of both; ``None`` where that runtime does not tell.
    """

    runtime: str
    engine: Path | None = None
    skipped: str | None = None
    timings: PerNetwork[Timing] | None = None
    simulated: bool = False
    launches: PerNetwork[int] | None = None

    @property
    def speedup(self) -> float | None:
        """Of the compressed network; ``None`` where nothing was timed."""
        return None if self.timings is None else self.timings.original.median_ns / self.timings.compressed.median_ns

    def as_json(self) -> dict[str, Any]:
        """Its part of ``result.json``."""
        said: dict[str, Any] = {"runtime": self.runtime, "skipped": self.skipped}
        said |= {"engine": None if self.engine is None else str(self.engine)}
        if self.timings is not None:
            named = self.timings.map(lambda timing: timing.median_ns / 1e6).named
            said |= {"speedup": self.speedup} | {f"{name}_latency_ms": each for name, each in named.items()}
        if self.launches is not None:
            said |= {f"{name}_launches": each for name, each in self.launches.named.items()}
        return said | ({"simulated": True} if self.simulated else {})


def build_also(
    name: str,
    models: PerNetwork[Path],
    options: BuildOptions,
    shapes: Mapping[str, Shape],
    policy: MeasurementPolicy,
    key: SigningKey | None = None,
) -> Also:
    """Build an engine beside a delivered ONNX file, verify it, and time both networks where its runtime runs here.

    What goes wrong is told and ends nothing.

    Args:
        name: Of the runtime, with the target after a colon.
        models: The ONNX files.
        options: Precision and batch of the job.
        shapes: Shapes of the inputs.
        policy: How sure latencies have to be.
        key: What its manifest is signed with; ``None`` for not at all.
    """
    try:
        runtime = get_runtime(name)
        model = models.compressed
        engine = model.with_suffix(f".{runtime.name.replace(':', '-')}{runtime.kind.suffix}")
        build_engine(model, runtime, options, shapes, engine, key)
        verify_built(manifest_path(engine), signed_by=None if key is None else key.public)
        both = PerNetwork(runtime.build(models.original, options, shapes), runtime.load(engine, options))
        timings = PerNetwork(**compare(both.named, policy)) if runtime.runs else None
    except LayerMergeError as error:
        return Also(name, skipped=f"{error.message}; {error.hint}" if error.hint else error.message)
    counts = [count for one in both if (count := runtime.launches(one)) is not None]
    launches = PerNetwork(*counts) if len(counts) == len(both.named) else None
    return Also(runtime.name, engine, None, timings, runtime.describe(options).simulated, launches)
