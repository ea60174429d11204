"""The manifest: everything that decides whether an engine may be used, and everything that was claimed of it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from trt_layermerge.delivery.checksum import FIELD, require_checksum, with_checksum
from trt_layermerge.delivery.delivery_signature import PublicKey, SigningKey, write_signed
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.errors import TableError
from trt_layermerge.files import parse_json, read_bytes, sha256
from trt_layermerge.precision.tolerance import LayerCheck
from trt_layermerge.runtimes.base import PRECISIONS, BuildOptions, Device
from trt_layermerge.runtimes.registry import runtime_kind

DELIVERY_FORMAT = "trt-layermerge manifest"

M = TypeVar("M", bound=BaseModel)

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", description="beside the manifest, never elsewhere")]


def _of_an_engine(device: Device) -> Device:
    if device.precision not in PRECISIONS:
        raise ValueError(f"precision {device.precision!r} is none of {', '.join(PRECISIONS)}")
    BuildOptions(device.threads)  # which refuses what no runtime can build
    return device


BuiltFor = Annotated[Device, AfterValidator(_of_an_engine)]
"""The device and runtime that an engine was built for."""


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_by_name=True, validate_by_alias=True
    )


_LATER = {
    *("launches", "latency_p90_ms", "latency_p99_ms", "host_latency_ms"),
    *("builds", "build_spread", "build_route"),
}
"""Figures that manifests of earlier versions do not have."""


class Figures(_Frozen):
    """A network's measured figures.

    Attributes:
        latency_ms: Median of one run, in ms.
        latency_ci_ms: Its 95 % confidence interval.
        accuracy: On the test data, through the engine: the share of right answers, 0..1, or what the manifest's
            ``metric`` names; ``None`` where the job had no task.
        layers: Convolutions executed.
        parameters: Numbers trained.
        flops: For one image.
        depth: Most convolutions in a row on any path; ``None`` in manifests written before it was counted.
        peak_activation_bytes: Most memory that the activations of one run take at once, float32; ``None`` as above.
        launches: Kernels of one run; ``None`` where its runtime does not tell, as with all that follows.
        latency_p90_ms: 90th percentile of single runs; runs that a GPU times back to back share their mean.
        latency_p99_ms: 99th percentile.
        host_latency_ms: Median of one request by the host's clock, inputs and outputs copied.
        builds: How many builds of the network took turns; ``None`` for the engine alone.
        build_spread: Standard deviation from build to build, as a share of the latency; the interval holds it.
        build_route: The compiler's knobs that made it fastest; empty where the usual ones did, and others were tried.
    """

    latency_ms: float
    latency_ci_ms: tuple[float, float]
    accuracy: float | None
    layers: int
    parameters: int
    flops: int
    depth: int | None = None
    peak_activation_bytes: int | None = None
    launches: int | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    host_latency_ms: float | None = None
    builds: int | None = None
    build_spread: float | None = None
    build_route: str | None = None

    @model_serializer(mode="wrap")
    def _said(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what was not told: files from before it was are the same."""
        return {name: value for name, value in fields(self).items() if name not in _LATER or value is not None}


class ProofFigures(_Frozen):
    """Relative errors of the equivalence proof.

    Attributes:
        merged_blocks: Merged blocks compared with their unmerged form.
        folded_norms: Convolutions compared with the convolution and norm that they replace.
        worst_block: Largest error of one of these, float64.
        merge_end_to_end: The merged network against the linearised one, float32.
        fold_end_to_end: The delivered network against the trained one, float32.
        engine: The engine against the PyTorch network, on real inputs.
        samples: Real inputs in each end-to-end comparison.
        fitted_blocks: Share of the target's variance that each fitted block misses.
        refitted_layers: The same of layers that were kept, with weights re-solved.
    """

    merged_blocks: int
    folded_norms: int
    worst_block: float
    merge_end_to_end: float
    fold_end_to_end: float
    engine: float
    samples: int
    fitted_blocks: dict[str, float]
    refitted_layers: dict[str, float] = {}


class ConversionFigures(_Frozen):
    """What the precision costs, on real inputs, before any engine.

    Attributes:
        original: Largest difference of the original's outputs in this precision and in FP32, over the largest.
        compressed: The same of the compressed network.
        layers: What each layer of the compressed network loses.
    """

    original: float
    compressed: float
    layers: tuple[LayerCheck, ...]


class RefinedPlan(_Frozen):
    """A plan that was executed and measured, to decide between plans by measurement.

    Attributes:
        rank: Its place by objective, from 1.
        measured_rank: Its place by measurement: plans that keep the budget first, by loss, then the others, by latency.
        predicted_ms: Latency that it predicted, carried over to the machine's speed when it was measured.
        measured_ms: Measured end-to-end latency of its engine.
        objective: What it predicted of the loss, in the method's scale; larger is better.
        held_out_loss: Measured after fitting, before any training.
        chosen: Whether it is the one that was delivered.
    """

    rank: PositiveInt
    measured_rank: PositiveInt
    predicted_ms: float
    measured_ms: float
    objective: float
    held_out_loss: float
    chosen: bool


class Manifest(_Frozen):
    """What lies beside an engine, as ``manifest.json``.

    Attributes:
        version: 2 has a checksum; all else that it has and 1 has not may be missing.
        files: SHA-256 of every delivered file, by name; all lie beside the manifest.
        engine: Name of the engine's file.
        onnx: Name of the ONNX file that it was built from.
        source: Name of the FP32 ONNX file that ``onnx`` was converted from; ``None`` where it was not.
        checks: Name of the file with real inputs and the PyTorch network's outputs for them.
        batch: Images in one run of the engine.
        batches: Fewest and most that it takes; ``None`` for ``batch`` alone.
        device: What it was built for.
        timing_cache: SHA-256 of the builder's timing cache as it was after the build; ``None`` where there is none.
        simulated: No device was timed: figures are not measurements.
        model: Spec of the original.
        task: Name of the task.
        metric: What the figures' ``accuracy`` is; ``None`` for the share of right answers.
        agreement: Of each output of the engine with the original's, where there were no labels: the figures'
            ``accuracy`` is their mean, or what the user's own metric says. ``None`` where there were.
        original: Figures of the original, measured interleaved with ``compressed``.
        compressed: Figures of the engine.
        speedup: Ratio of their latencies.
        predicted_latency_ms: What the plan said, carried over to the machine's speed at the final timing: the plan's
            own figure times ``drift``.
        drift: The original's latency at the final timing over its latency when the plan was made.
        probability: Probability of meeting the budget that the plan stated, by the intervals of its latencies.
        refined: The plans that were measured to decide for this one, by objective; none where predictions decided.
        plan: The plan and its certificate, as in the plan file.
        proof: The equivalence proof.
        conversion: What the precision costs; ``None`` for FP32.
        seeds: Every seed that was used.
        versions: Of Python and the packages that matter.
        git: Commit of the folder that the job was run in, with ``+`` where it had changes; ``None`` outside of git.
        checksum: Hash of the rest of the file; written and checked on its way to and from the disk.
    """

    format: Literal["trt-layermerge manifest"] = "trt-layermerge manifest"
    version: Literal[1, 2] = 2
    files: dict[FileName, Sha256]
    engine: FileName
    onnx: FileName
    source: FileName | None = None
    checks: FileName
    batch: PositiveInt
    batches: tuple[PositiveInt, PositiveInt] | None = None
    device: BuiltFor
    timing_cache: Sha256 | None = None
    simulated: bool
    model: str
    task: str | None
    metric: str | None = None
    agreement: dict[str, float] | None = None
    original: Figures
    compressed: Figures
    speedup: float
    predicted_latency_ms: float
    drift: float
    probability: float | None = None
    refined: list[RefinedPlan] = []
    plan: dict[str, Any]
    proof: ProofFigures
    conversion: ConversionFigures | None = None
    seeds: dict[str, int]
    versions: dict[str, str]
    git: str | None
    checksum: Sha256 | None = Field(default=None, alias="seal")

    @property
    def figures(self) -> PerNetwork[Figures]:
        """Of both networks."""
        return PerNetwork(self.original, self.compressed)

    @model_validator(mode="after")
    def _all_hashed(self) -> Manifest:
        """What is loaded must be among what is hashed, or the hashes would say nothing of it."""
        for name in (self.engine, self.onnx, self.source, self.checks):
            if name is not None and name not in self.files:
                raise ValueError(f"files has no hash of {name}")
        return self

    @model_validator(mode="after")
    def _batch_in_range(self) -> Manifest:
        if self.batches is not None and not self.batches[0] <= self.batch <= self.batches[1]:
            raise ValueError(f"batch {self.batch} is not within batches {self.batches}")
        return self


def write_manifest(path: Path, manifest: Manifest, key: SigningKey | None = None) -> None:
    """Write a manifest with its checksum, signed where there is a key; after a kill it is the old one or the new."""
    # Without what is not set, so that what does not know it still reads the others.
    unsaid = {"checksum", *(name for name in ("metric", "agreement") if getattr(manifest, name) is None)}
    write_signed(path, with_checksum(manifest.model_dump(mode="json", exclude=unsaid) | {"version": 2}), key)


def read_manifest(path: Path, signed_by: PublicKey | None = None) -> Manifest:
    """Read a manifest.

    Args:
        path: Where it lies.
        signed_by: Who must have signed it; ``None`` for anyone, or no one.

    Raises:
        TableError: It is missing, or is no manifest; the message names the field.
        VerificationError: It is not signed, or has a checksum that it does not fit.
    """
    data = manifest_bytes(path, signed_by)
    if FIELD.encode() in data or b'"version": 2' in data:  # one changed byte leaves one of them
        require_checksum(path, data)
    return validated(Manifest, path, data, "deliver the engine again with compress")


def manifest_bytes(path: Path, signed_by: PublicKey | None = None) -> bytes:
    """What a manifest holds.

    Raises:
        TableError: It cannot be read.
        VerificationError: A key is given, and the manifest is not signed by it.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise TableError(f"cannot read the manifest {path}: {error.strerror}") from error
    except ValueError as error:
        raise TableError(f"{path} is not a manifest: it {error}") from error
    if signed_by is not None:
        signed_by.require_signature(path, data)
    return data


def validated(kind: type[M], path: Path, data: bytes, hint: str) -> M:
    """A manifest of a kind from its bytes.

    Raises:
        TableError: It is none; the message names the field, and the hint says how to get one.
    """
    try:
        manifest = kind.model_validate_json(data)
        parse_json(data)  # which bounds what a manifest leaves open
        return manifest
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise TableError(f"{path} is not a manifest: {where}: {fault['msg']}", hint=hint) from error
    except ValueError as error:
        raise TableError(f"{path} is not a manifest: it {error}") from error


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files in a folder."""
    return {name: sha256(folder / name) for name in names}


def timing_cache_hash(device: Device, options: BuildOptions) -> str | None:
    """SHA-256 of the timing cache that a build with these options used; ``None`` where there is none."""
    cache = runtime_kind(device.runtime).timing_cache(device, options.settings)
    return sha256(cache) if cache is not None and cache.is_file() else None


def git_state() -> str | None:
    """Commit of the folder we are in, with ``+`` where there are changes."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def plan_fields(path: Path) -> dict[str, Any]:
    """The content of a plan file, to go into the manifest."""
    fields: dict[str, Any] = json.loads(path.read_bytes())
    return fields


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout.strip()
