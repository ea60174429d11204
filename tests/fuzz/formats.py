"""Every format that is read: valid files, how they are structured, and their reader.

A new format is one entry of ``FORMATS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load

from tests.fuzz import readers, samples, structures
from tests.fuzz.bench import TESTS, Bench
from tests.fuzz.mutation import Structure
from trt_layermerge.delivery.checksum import FIELD, with_checksum
from trt_layermerge.delivery.engines import try_model
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.journal import Journal
from trt_layermerge.network.source import try_onnx
from trt_layermerge.pipeline.correction_file import read_correction
from trt_layermerge.pipeline.measured_plans import REFINEMENT, MeasuredPlans
from trt_layermerge.pipeline.measuring import _read_baseline
from trt_layermerge.planning.plan import read_plan
from trt_layermerge.training.checkpoint import _checksum
from trt_layermerge.training.datasets import CIFAR_RECORD
from trt_layermerge.training.recipes import read_recipe

CORRECTION = TESTS / "golden" / "correction-v1.json"

Read = Callable[[Path, Bench], object]


@dataclass(frozen=True)
class FileFormat:
    """A format.

    Attributes:
        name: What it is called.
        file: Name of a file of it.
        samples: Makes valid files.
        read: Reads a file as the commands do, and uses what it read as they do.
        structure: What changes it sensibly.
        finish: Makes a changed file pass its own checksum.
        apart: Read in a process of its own, which may crash; what goes well there is read here, too.
        share: How many inputs for one of another format; slow formats have fewer.
    """

    name: str
    file: str
    samples: Callable[[Bench], Sequence[bytes]]
    read: Read
    structure: Structure | None = None
    finish: Callable[[bytes], bytes] | None = None
    apart: Callable[[str], object] | None = None
    share: float = 1.0


def _resealed(data: bytes) -> bytes:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(fields, dict):
        return data
    fields.pop(FIELD, None)
    try:
        return with_checksum(fields)
    except ValueError:
        return data


def _checkpoint_resealed(data: bytes) -> bytes:
    """With the checksum of what the header says now, where it can be read at all."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        said = header["__metadata__"]
        said["seal"] = _checksum(said, load(data))
        text = json.dumps(header).encode()
    except Exception:
        return data
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


_LINES, _TABLE, _MODEL = structures.json_lines, structures.csv_table, structures.onnx_model


_GOLDEN = (TESTS / "latency" / "assets" / "profile-v1.jsonl").read_bytes()


FORMATS = {
    one.name: one
    for one in (
        FileFormat("profile", "p.jsonl", lambda b: [b.profile.read_bytes(), _GOLDEN], readers.profile, _LINES),
        FileFormat("profile to recalibrate by", "p.jsonl", samples.tensorrt_profile, readers.measured_profile, _LINES),
        FileFormat(
            "importance table",
            "i.jsonl",
            lambda b: b.output("importance.jsonl"),
            lambda p, _: ImportanceTable.read(p),
            _LINES,
        ),
        FileFormat(
            "refinement", "r.jsonl", samples.refinement, lambda p, _: MeasuredPlans(Journal.read(p, REFINEMENT)), _LINES
        ),
        FileFormat(
            "plan", "plan.json", lambda b: b.output("plan.json"), lambda p, _: read_plan(p), structures.json_value
        ),
        FileFormat(
            "baseline",
            "b.json",
            lambda b: b.output("baseline.json"),
            lambda p, _: _read_baseline(p, {}),
            structures.json_value,
        ),
        FileFormat(
            "correction",
            "c.json",
            lambda _: [CORRECTION.read_bytes()],
            lambda p, _: read_correction(p, {}),
            structures.json_value,
        ),
        FileFormat(
            "manifest",
            "m.json",
            lambda b: b.output("manifest.json"),
            readers.manifest,
            structures.indented_json,
            _resealed,
        ),
        FileFormat(
            "engine manifest",
            "m.json",
            lambda b: [b.built.read_bytes()],
            readers.engine_manifest,
            structures.indented_json,
            _resealed,
            share=0.3,
        ),
        FileFormat("signature", "m.json.sig", samples.signatures, readers.signed_manifest),
        FileFormat("public key", "k.pem", lambda _: samples.public_keys(), readers.public_key),
        FileFormat("private key", "k.pem", lambda _: samples.private_keys(), readers.private_key, share=0.3),
        FileFormat(
            "report of the doctor",
            "r.json",
            samples.reports_of_the_doctor,
            readers.report_of_the_doctor,
            structures.json_value,
            share=0.5,
        ),
        FileFormat("configuration", "c.toml", samples.configurations, readers.configuration, structures.toml_table),
        FileFormat("recipe", "r.toml", samples.recipes, lambda p, _: read_recipe(str(p)), structures.toml_table),
        FileFormat("device", "d.toml", samples.cards, readers.card, structures.toml_table),
        FileFormat(
            "CSV of latencies",
            "l.csv",
            lambda _: [samples.LATENCIES.encode()],
            lambda p, _: readers.solved(p, readers.beside(p, "i.csv", samples.IMPORTANCES)),
            _TABLE,
        ),
        FileFormat(
            "CSV of importances",
            "i.csv",
            lambda _: [samples.IMPORTANCES.encode()],
            lambda p, _: readers.solved(readers.beside(p, "l.csv", samples.LATENCIES), p),
            _TABLE,
        ),
        FileFormat("CSV of stage one", "l.csv", lambda _: [samples.LATENCIES.encode()], readers.depth, _TABLE),
        FileFormat(
            "CSV of convolutions", "c.csv", lambda _: [samples.CONVOLUTIONS.encode()], readers.convolutions, _TABLE
        ),
        FileFormat("ONNX, before it is run", "m.onnx", samples.onnx_models, readers.onnx_gate, _MODEL),
        FileFormat(
            "ONNX, imported and run", "m.onnx", samples.onnx_models, readers.ran, _MODEL, apart=try_onnx, share=0.2
        ),
        FileFormat("ONNX, built", "m.onnx", samples.onnx_models, readers.built, _MODEL, apart=try_model, share=0.2),
        FileFormat(
            "engine of ONNX Runtime", "e.onnx", lambda b: b.output("*.engine.onnx"), readers.engine, _MODEL, share=0.2
        ),
        FileFormat("engine of TensorRT-RTX", "e.engine", samples.rtx_plans, readers.rtx_plan),
        FileFormat(
            "timing cache",
            "c.timing",
            lambda _: [b'DOUBLE TIMING CACHE\n{"version": "11.4.0.106", "entries": {}}'],
            readers.cached_timings,
            share=0.3,
        ),
        *(
            FileFormat(
                f"trtexec's {name}",
                "x.json",
                lambda _, name=name: [(TESTS / "latency" / "assets" / f"trtexec-{name}.json").read_bytes()],  # type: ignore[misc]
                readers.trtexec_export,
                structures.indented_json,
            )
            for name in ("times", "profile", "layers")
        ),
        FileFormat(
            "recorded inputs and outputs",
            "c.safetensors",
            lambda b: b.output("checks.*"),
            readers.checks,
            structures.safetensors_file,
        ),
        FileFormat(
            "checkpoint",
            "c.safetensors",
            lambda b: b.output("*.checkpoint.*"),
            readers.checkpoint,
            structures.checkpoint_file,
            _checkpoint_resealed,
        ),
        FileFormat(
            "start of training",
            "s.safetensors",
            lambda b: samples.safetensors(b)[:1],
            readers.start,
            structures.safetensors_file,
        ),
        FileFormat(
            "weights, safetensors", "w.safetensors", samples.safetensors, readers.weights, structures.safetensors_file
        ),
        FileFormat("weights, state dict", "w.pth", samples.state_dicts, readers.weights, structures.zip_archive),
        FileFormat(
            "array of samples", "a.npy", samples.arrays, readers.unlabelled_array, structures.npy_file, share=0.5
        ),
        FileFormat("images without labels", "image", samples.images, readers.unlabelled_images, share=0.3),
        FileFormat("folder of images", "image", samples.images, readers.images_by_class, share=0.5),
        FileFormat(
            "CIFAR-10",
            "data_batch_1.bin",
            lambda _: [bytes(range(10)) * (4 * CIFAR_RECORD // 10) + bytes(2)],
            readers.cifar,
            share=0.5,
        ),
    )
}
