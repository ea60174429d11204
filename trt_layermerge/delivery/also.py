"""One more engine of a finished job, for another runtime: such as one compiled ahead of time for a GPU elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.delivery.engine_manifest import manifest_path
from trt_layermerge.delivery.engines import build_engine, verify_built
from trt_layermerge.errors import LayerMergeError
from trt_layermerge.runtimes.base import BuildOptions, Shape
from trt_layermerge.runtimes.registry import get_runtime


@dataclass(frozen=True)
class Also:
    """What came of it.

    Attributes:
        runtime: What it was to be built for, such as ``tensorrt-rtx:sm75``.
        engine: Its file, with its manifest beside it; ``None`` where there is none.
        skipped: Why there is none.
    """

    runtime: str
    engine: Path | None = None
    skipped: str | None = None


def build_also(name: str, model: Path, options: BuildOptions, shapes: Mapping[str, Shape]) -> Also:
    """Build an engine beside a delivered ONNX file, and verify it; what goes wrong is told and ends nothing.

    Args:
        name: Of the runtime, with the target after a colon.
        model: The ONNX file.
        options: Precision and batch of the job.
        shapes: Shapes of the inputs.
    """
    try:
        runtime = get_runtime(name)
        engine = model.with_suffix(f".{runtime.name.replace(':', '-')}{runtime.kind.suffix}")
        build_engine(model, runtime, options, shapes, engine)
        verify_built(manifest_path(engine))
    except LayerMergeError as error:
        return Also(name, skipped=f"{error.message}; {error.hint}" if error.hint else error.message)
    return Also(name, engine)
