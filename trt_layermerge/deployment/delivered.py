"""Reads what ``compress`` or ``build`` delivered, its hashes checked, as what a deployment is made from."""

from __future__ import annotations

from pathlib import Path

import onnx

from trt_layermerge.delivery.delivery_signature import PublicKey
from trt_layermerge.delivery.engine_manifest import is_engine_manifest, read_engine_manifest
from trt_layermerge.delivery.integrity import check_file
from trt_layermerge.delivery.manifest import Manifest, read_manifest
from trt_layermerge.deployment.base import OPEN, Delivered, Port
from trt_layermerge.errors import InputError, VerificationError
from trt_layermerge.files import sha256
from trt_layermerge.onnxfile import inputs_of, read_onnx
from trt_layermerge.runtimes.registry import runtime_kind


def read_delivered(path: Path, model: Path | None = None, signed_by: PublicKey | None = None) -> Delivered:
    """Read a delivery by its manifest.

    Args:
        path: ``manifest.json`` of a job, or ``ENGINE.manifest.json``.
        model: The ONNX file that the engine was built from, where it does not lie beside it.
        signed_by: Who must have signed the manifest; ``None`` for anyone, or no one.

    Raises:
        InputError: The manifest or a file is missing or damaged.
        VerificationError: It is not signed, or a file is not the one that was delivered.
    """
    read = read_engine_manifest if is_engine_manifest(path) else read_manifest
    manifest = read(path, signed_by)
    for name, expected in manifest.files.items():
        check_file(path.parent / name, expected)
    if isinstance(manifest, Manifest):
        batch, source, figures = manifest.batch, manifest.files[manifest.onnx], manifest.figures.map(_numbers)
        settings = _settings(manifest)
    else:
        batch, source, figures = next(iter(manifest.inputs.values()))[0], manifest.onnx_sha256, None
        settings = {"onnx_sha256": source}
    graph = read_onnx(_model(path.parent, manifest.onnx, model, source), weights=False).graph
    return Delivered(
        manifest=path,
        engine=path.parent / manifest.engine,
        inputs=tuple(_port(value, batch) for value in inputs_of(graph).values()),
        outputs=tuple(_port(value, batch) for value in graph.output),
        batches=manifest.batches or (batch, batch),
        device=manifest.device,
        kind=runtime_kind(manifest.device.runtime),
        figures=figures,
        settings=settings,
    )


def _model(folder: Path, name: str, given: Path | None, expected: str) -> Path:
    found = given or folder / name
    if not found.is_file():
        raise InputError(
            f"{found} is missing: an engine's types of inputs and outputs are read from it",
            hint="pass --model with the ONNX file that the engine was built from",
        )
    if sha256(found) != expected:
        raise VerificationError(
            f"{found} is not the file that the engine was built from: its SHA-256 differs from the manifest's",
            hint="pass --model with the file that it was built from, or build the engine again",
        )
    return found


def _port(value: onnx.ValueInfoProto, batch: int) -> Port:
    kind = value.type.tensor_type
    sizes = [size.dim_value or OPEN for size in kind.shape.dim]
    if sizes and sizes[0] == OPEN:
        sizes[0] = batch
    return Port(value.name, kind.elem_type, tuple(sizes))


def _numbers(figures: object) -> dict[str, float]:
    return {name: float(value) for name, value in vars(figures).items() if isinstance(value, int | float)}


def _settings(manifest: Manifest) -> dict[str, str]:
    device = manifest.device
    return {
        "model": manifest.model,
        "task": str(manifest.task),
        "batch": str(manifest.batch),
        "precision": device.precision,
        "runtime": f"{device.runtime} {device.runtime_version}",
        "device": device.name,
        "simulated": str(manifest.simulated),
        "git": str(manifest.git),
        **{f"version {name}": version for name, version in manifest.versions.items()},
    }
