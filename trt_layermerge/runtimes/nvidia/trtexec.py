"""NVIDIA's trtexec, for whoever wants to compare: the command that comes closest to what ``tensorrt`` does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from trt_layermerge.runtimes.base import BuildOptions, Shape
from trt_layermerge.runtimes.nvidia.compiler_settings import TensorRtSettings

WARM_UP_MS = 200.0
"""Of trtexec, and ours."""


def trtexec(model: Path, options: BuildOptions, shapes: Mapping[str, Shape]) -> str:
    """The command of NVIDIA's trtexec that builds and times most nearly what this runtime does.

    Args:
        model: ONNX file.
        options: How it would be built here.
        shapes: Shape to time of each input that the model leaves open; trtexec takes none for others.
    """
    settings, batches = TensorRtSettings.of(options.settings), options.batches
    words = ["trtexec", f"--onnx={model}", "--stronglyTyped"]
    if shapes:
        words.append(f"--shapes={_written(shapes)}")
    if shapes and batches is not None:
        low, high = ({name: (batch, *shape[1:]) for name, shape in shapes.items()} for batch in batches)
        words += [f"--minShapes={_written(low)}", f"--optShapes={_written(shapes)}", f"--maxShapes={_written(high)}"]
    words += [] if settings.workspace_mib is None else [f"--memPoolSize=workspace:{settings.workspace_mib}M"]
    words += (
        [] if settings.optimization_level is None else [f"--builderOptimizationLevel={settings.optimization_level}"]
    )
    words += [] if settings.tf32 else ["--noTF32"]
    words += [] if settings.timing_cache is None else [f"--timingCacheFile={settings.timing_cache}"]
    words += ["--errorOnTimingCacheMiss"] if settings.cache_only else []
    words += [f"--setBuildRoute={shlex.quote(settings.build_route)}"] if settings.build_route else []
    words += ["--useCudaGraph"] if settings.cuda_graph else []
    return " ".join([*words, "--useSpinWait", "--noDataTransfers", f"--warmUp={WARM_UP_MS:.0f}"])


def _written(shapes: Mapping[str, Shape]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
