"""An engine on its own: built from any ONNX file for any runtime, with a manifest, and verified by that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trt_layermerge.delivery.delivery_signature import PublicKey, SigningKey
from trt_layermerge.delivery.engine_manifest import (
    EngineManifest,
    manifest_path,
    read_engine_manifest,
    write_engine_manifest,
)
from trt_layermerge.delivery.manifest import git_state, hashes, timing_cache_hash
from trt_layermerge.delivery.verified_engine import verified_engine
from trt_layermerge.errors import ModelError
from trt_layermerge.files import sha256
from trt_layermerge.network.onnx_import.size_limits import require_bounded
from trt_layermerge.onnxfile import initial_values, named_model, read_onnx, weight_files
from trt_layermerge.runtimes.base import BuildOptions, Device, Runtime, Shape
from trt_layermerge.runtimes.graph_precision import graph_precision, require_precision
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.versions import versions


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that was verified.

    Attributes:
        manifest: The manifest that was read.
        files: Number of files whose hashes are right.
        device: What the engine is for, as read back from it by its runtime.
    """

    manifest: EngineManifest
    files: int
    device: Device


def try_model(path: str) -> None:
    """Read an ONNX file and let ONNX Runtime optimise it; for a process that may crash.

    Raises:
        ModelError: It cannot be read. What ONNX Runtime cannot build, another runtime may.
    """
    proto = read_onnx(Path(path))
    require_bounded(proto, path)
    graph_precision(proto, path)
    initial_values(proto.graph, path)
    with suppress(ModelError):
        get_runtime("onnxruntime").build(proto, BuildOptions())


def engine_suffix(runtime: Runtime) -> str:
    """What the file of a runtime's engine ends in: what it was compiled for, where that was chosen."""
    return runtime.kind.suffix if runtime.target is None else f".{runtime.target}{runtime.kind.suffix}"


def build_engine(
    model: Path,
    runtime: Runtime,
    options: BuildOptions,
    shapes: Mapping[str, Shape],
    output: Path,
    key: SigningKey | None = None,
) -> EngineManifest:
    """Build an engine from an ONNX file, and write it with its manifest.

    Args:
        model: The ONNX file.
        runtime: What builds it.
        options: How; their precision is compared with the graph.
        shapes: Shape of each input that the model leaves open.
        output: The engine's file; its manifest lies beside it.
        key: What the manifest is signed with; ``None`` for not at all.

    Raises:
        ModelError: The model cannot be built, or is not written in the precision that the options name.
        RuntimeNotAvailableError: The runtime or its device is not here.
    """
    require_precision(read_onnx(model), options.precision, named_model(model))
    source = sha256(model)
    engine = runtime.build(model, options, shapes)
    engine.save(output)
    beside = model.resolve().parent == output.resolve().parent
    sources = [name for name in (model.name, *weight_files(model)) if beside and Path(name).name == name]
    manifest = EngineManifest(
        files=hashes(output.parent, [output.name, *sources]),
        engine=output.name,
        onnx=model.name,
        onnx_sha256=source,
        inputs=dict(engine.inputs),
        outputs=dict(engine.outputs),
        batches=options.batches,
        device=(device := engine.describe()),
        timing_cache=timing_cache_hash(device, options),
        versions=versions(),
        git=git_state(),
    )
    write_engine_manifest(manifest_path(output), manifest, key)
    return manifest


def verify_built(path: Path, *, strict: bool = False, signed_by: PublicKey | None = None) -> BuiltEngine:
    """Check an engine by its manifest: its files, and that it is what the manifest says for this runtime.

    Args:
        path: The manifest.
        strict: Whether ``require_strict`` must hold as well.
        signed_by: Who must have signed it; ``None`` for anyone, or no one.

    Raises:
        InputError: The manifest or a file is missing.
        VerificationError: It is not signed, or a file is not the one that was written.
        IncompatibleError: The engine was built for another device, or by another version than is here.
        RuntimeNotAvailableError: Its runtime is not here.
    """
    manifest = read_engine_manifest(path, signed_by)
    hint = f"build it here, from {manifest.onnx}"
    engine = verified_engine(path, manifest, hint, strict=strict, signed_by=signed_by)
    return BuiltEngine(manifest, len(manifest.files), engine.describe())
