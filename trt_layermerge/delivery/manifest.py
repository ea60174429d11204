"""The manifest: everything that decides whether an engine may be used, and everything that was claimed of it."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from trt_layermerge.errors import TableError
from trt_layermerge.files import sha256, write_json
from trt_layermerge.journal import differences
from trt_layermerge.runtimes.protocol import Device

PACKAGES = ("trt_layermerge", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", description="beside the manifest, never elsewhere")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Figures(_Frozen):
    """A network's measured figures.

    Attributes:
        latency_ms: Median of one run, in ms.
        latency_ci_ms: Its 95 % confidence interval.
        accuracy: On the test data, through the engine, 0..1; ``None`` where the job had no task.
        layers: Convolutions executed.
        parameters: Numbers trained.
        flops: For one image.
        depth: Most convolutions in a row on any path; ``None`` in manifests written before it was counted.
        peak_activation_bytes: Most memory that the activations of one run take at once, float32; ``None`` as above.
    """

    latency_ms: float
    latency_ci_ms: tuple[float, float]
    accuracy: float | None
    layers: int
    parameters: int
    flops: int
    depth: int | None = None
    peak_activation_bytes: int | None = None


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
        refitted_layers: The same of layers that were kept, with weights solved anew.
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


class DeviceFields(_Frozen):
    """The device and runtime that the engine was built for; see ``runtimes.protocol.Device``."""

    name: str
    runtime: str
    runtime_version: str
    driver: str | None
    precision: str
    threads: PositiveInt
    timing: str
    clocks: str

    def differences(self, here: Device) -> list[str]:
        """What differs on this machine, of what decides whether the engine may load."""
        decisive = {"name", "runtime", "runtime_version", "precision"}
        return differences(self.model_dump(include=decisive), asdict(here))


class RefinedPlan(_Frozen):
    """A plan that was carried out and measured, to decide between plans by measurement.

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
        files: SHA-256 of every delivered file, by name; all lie beside the manifest.
        engine: Name of the engine's file.
        onnx: Name of the ONNX file that it was built from.
        checks: Name of the file with real inputs and the PyTorch network's outputs for them.
        batch: Images in one run of the engine.
        device: What it was built for.
        simulated: No device was timed: figures are not measurements.
        model: Spec of the original.
        task: Name of the task.
        original: Figures of the original, measured in turns with ``compressed``.
        compressed: Figures of the engine.
        speedup: Ratio of their latencies.
        predicted_latency_ms: What the plan said, carried over to the machine's speed at the final timing: the plan's
            own figure times ``drift``.
        drift: The original's latency at the final timing over its latency when the plan was made.
        probability: Probability of meeting the budget that the plan stated, by the intervals of its latencies.
        refined: The plans that were measured to decide for this one, by objective; none where predictions decided.
        plan: The plan and its certificate, as in the plan file.
        proof: The equivalence proof.
        seeds: Every seed that was used.
        versions: Of Python and the packages that matter.
        git: Commit of the folder that the job was run in, with ``+`` where it had changes; ``None`` outside of git.
    """

    format: Literal["trt-layermerge manifest"] = "trt-layermerge manifest"
    version: Literal[1] = 1
    files: dict[FileName, Sha256]
    engine: FileName
    onnx: FileName
    checks: FileName
    batch: PositiveInt
    device: DeviceFields
    simulated: bool
    model: str
    task: str | None
    original: Figures
    compressed: Figures
    speedup: float
    predicted_latency_ms: float
    drift: float
    probability: float | None = None
    refined: list[RefinedPlan] = []
    plan: dict[str, Any]
    proof: ProofFigures
    seeds: dict[str, int]
    versions: dict[str, str]
    git: str | None

    @model_validator(mode="after")
    def _all_hashed(self) -> Manifest:
        """What is loaded must be among what is hashed, or the hashes would say nothing of it."""
        for name in (self.engine, self.onnx, self.checks):
            if name not in self.files:
                raise ValueError(f"files has no hash of {name}")
        return self


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest; after a kill the file is the old one or the new one."""
    write_json(path, manifest.model_dump(mode="json"))


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        TableError: It is missing, or is no manifest; the message names the field.
    """
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise TableError(f"cannot read the manifest {path}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise TableError(
            f"{path} is not a manifest: {where}: {fault['msg']}", hint="deliver the engine anew with compress"
        ) from error


def hashes(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files in a folder."""
    return {name: sha256(folder / name) for name in names}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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
