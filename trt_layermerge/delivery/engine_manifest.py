"""The manifest of an engine on its own, as ``build`` writes it: what it was built from, for what, by what.

It claims nothing of latency or accuracy; the manifest of a whole job (``manifest.py``) does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from trt_layermerge.delivery.checksum import FIELD, require_checksum, with_checksum
from trt_layermerge.delivery.delivery_signature import PublicKey, SigningKey, write_signed
from trt_layermerge.delivery.manifest import DELIVERY_FORMAT, BuiltFor, Sha256, manifest_bytes, validated

ENGINE_FORMAT = "trt-layermerge engine"


# Users name these files; they lie beside the manifest, never elsewhere.
EngineFileName = Annotated[str, Field(pattern=r"^[^/\\]*[^/\\.][^/\\]*$")]


class EngineManifest(BaseModel):
    """What lies beside an engine, as ``ENGINE.manifest.json``.

    Attributes:
        files: SHA-256 of the engine, and of the ONNX file and its weights where they lie in the same folder, by name.
        engine: Name of the engine's file.
        onnx: Name of the ONNX file that it was built from.
        onnx_sha256: Hash of that file, wherever it lay.
        inputs: Names and shapes of the inputs.
        outputs: Names and shapes of the outputs.
        batches: Smallest and largest batch that it takes; ``None`` for that of the shapes alone.
        device: What it was built for, by which runtime and version, in which precision.
        timing_cache: SHA-256 of the builder's timing cache as it was after the build; ``None`` where there is none.
        versions: Of Python and the packages that matter.
        git: Commit of the folder that it was built in; see ``Manifest``.
        checksum: Hash of the rest of the file; written and checked on its way to and from the disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    format: Literal["trt-layermerge engine"] = "trt-layermerge engine"
    version: Literal[1] = 1
    files: dict[EngineFileName, Sha256]
    engine: EngineFileName
    onnx: EngineFileName
    onnx_sha256: Sha256
    inputs: dict[str, tuple[PositiveInt, ...]]
    outputs: dict[str, tuple[PositiveInt, ...]]
    batches: tuple[PositiveInt, PositiveInt] | None = None
    device: BuiltFor
    timing_cache: Sha256 | None = None
    versions: dict[str, str]
    git: str | None
    checksum: Sha256 | None = Field(default=None, alias="seal")

    @model_validator(mode="after")
    def _engine_hashed(self) -> EngineManifest:
        if self.engine not in self.files:
            raise ValueError(f"files has no hash of {self.engine}")
        return self


def manifest_path(engine: Path) -> Path:
    """Where an engine's manifest lies."""
    return engine.with_name(f"{engine.name}.manifest.json")


def is_engine_manifest(path: Path) -> bool:
    """Whether a file is the manifest of an engine on its own, even with a byte of it changed.

    Raises:
        TableError: It cannot be read.
    """
    data = manifest_bytes(path)
    # One changed byte leaves one of these; what it makes of a job's manifest fits no checksum either.
    return ENGINE_FORMAT.encode() in data or (FIELD.encode() in data and DELIVERY_FORMAT.encode() not in data)


def write_engine_manifest(path: Path, manifest: EngineManifest, key: SigningKey | None = None) -> None:
    """Write a manifest with its checksum, signed where there is a key; after a kill it is the old one or the new."""
    unsaid = {"checksum", *(() if manifest.timing_cache else ("timing_cache",))}  # as in a job's manifest
    write_signed(path, with_checksum(manifest.model_dump(mode="json", exclude=unsaid)), key)


def read_engine_manifest(path: Path, signed_by: PublicKey | None = None) -> EngineManifest:
    """Read a manifest.

    Args:
        path: Where it lies.
        signed_by: Who must have signed it; ``None`` for anyone, or no one.

    Raises:
        TableError: It is missing, or is no manifest of an engine.
        VerificationError: It is one, and is not signed, or a byte of it has changed.
    """
    data = manifest_bytes(path, signed_by)
    if is_engine_manifest(path):
        require_checksum(path, data)
    return validated(EngineManifest, path, data, "build the engine again")
