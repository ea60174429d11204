"""The whole job: plan, carry the plan out, fine-tune, prove, deliver, verify, measure, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor, fx

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.delivery.export import INPUT, export_onnx
from trt_layermerge.delivery.manifest import (
    ConversionFigures,
    DeviceFields,
    Figures,
    LayerFigures,
    Manifest,
    ProofFigures,
    RefinedPlan,
    git_state,
    hashes,
    plan_fields,
    timing_cache_hash,
    versions,
    write_manifest,
)
from trt_layermerge.delivery.typed import Typed, typed_path
from trt_layermerge.delivery.verify import engine_outputs, verify_delivery, verify_engine, write_checks
from trt_layermerge.errors import TableError
from trt_layermerge.files import exclusive, sha256, write_bytes, write_json
from trt_layermerge.importance.estimate import first
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_folds, prove_network
from trt_layermerge.merging.sequential import Compression, carry_out
from trt_layermerge.network.count import size_of
from trt_layermerge.pipeline.also import Also, build_also
from trt_layermerge.pipeline.job import Job, Reporter
from trt_layermerge.pipeline.refine import refine_stage
from trt_layermerge.pipeline.stages import Loaded, chosen, plan_stage
from trt_layermerge.planning.confidence import probability
from trt_layermerge.planning.plan import PlanFile, Refined
from trt_layermerge.report.html import write_report
from trt_layermerge.runtimes.protocol import Engine
from trt_layermerge.training.decoupling import decouple, settled
from trt_layermerge.training.evaluate import score
from trt_layermerge.training.loop import fine_tune
from trt_layermerge.training.task import Task

CHECKED_SAMPLES = 64
"""Real inputs of the end-to-end comparisons, taken from the held-out data."""

COMPRESSED_ONNX, ENGINE, CHECKS = "compressed.onnx", "compressed.engine.onnx", "checks.safetensors"
MANIFEST, REPORT, RESULT = "manifest.json", "report.html", "result.json"


@dataclass(frozen=True)
class Result:
    """What a job made.

    Attributes:
        manifest: As it was written.
        folder: Where everything lies.
        also: The engine for another runtime, where the job asked for one.
    """

    manifest: Manifest
    folder: Path
    also: Also | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that ``compress --json`` prints."""
        manifest = self.manifest
        return {
            "original": manifest.original.model_dump(mode="json"),
            "compressed": manifest.compressed.model_dump(mode="json"),
            "speedup": manifest.speedup,
            "predicted_latency_ms": manifest.predicted_latency_ms,
            "proof": manifest.proof.model_dump(mode="json"),
            "engine": str(self.folder / manifest.engine),
            "manifest": str(self.folder / MANIFEST),
            "report": str(self.folder / REPORT),
        } | self._also_as_json()

    def _also_as_json(self) -> dict[str, Any]:
        if self.also is None:
            return {}
        engine = None if self.also.engine is None else str(self.also.engine)
        return {"also": {"runtime": self.also.runtime, "engine": engine, "skipped": self.also.skipped}}


def compress(loaded: Loaded, reporter: Reporter) -> Result:
    """Do the whole job; interrupted, the same call goes on where it stopped.

    Raises:
        InputError: Another process is at work in the same folder.
        LayerMergeError: See the stages; what was measured and trained until then is on disk.
    """
    with exclusive(loaded.job.output):
        return _compress(loaded, reporter)


def _compress(loaded: Loaded, reporter: Reporter) -> Result:
    file = refine_stage(loaded, reporter) if loaded.job.refine else plan_stage(loaded, reporter)
    inputs, choices = _real_inputs(loaded.require_task()), chosen(loaded, file.plan)
    decouples = loaded.job.recipe is not None and loaded.job.recipe.decouple > 0
    carried = (_trained_then_merged if decouples else _merged_then_trained)(loaded, choices, inputs, reporter)
    compression, merge, trained = carried
    reporter.stage("prove")
    delivered = fold_norms(trained)
    fold = prove_network(trained, delivered, inputs, prove_folds(trained))
    reporter.stage("deliver")
    engines = _build(loaded, delivered, inputs)
    original, compressed = _measured(loaded, engines, delivered, reporter)
    proof = _proof_figures(merge, fold, engines.difference, compression)
    manifest = _manifest(loaded, file, (original, compressed), proof, engines.onnx)
    return _write(loaded.job, manifest, _also(loaded, reporter))


def _also(loaded: Loaded, reporter: Reporter) -> Also | None:
    job = loaded.job
    if job.also is None:
        return None
    reporter.stage("also")
    shapes = {INPUT: (job.batch, *loaded.network.input_shape)}
    onnx = typed_path(job.output / COMPRESSED_ONNX, job.options.precision)
    return build_also(job.also, onnx, job.options, shapes)


@dataclass(frozen=True)
class _Engines:
    """Both networks as engines and as ONNX, and how far the compressed engine is from its PyTorch network."""

    original: Engine
    compressed: Engine
    difference: float
    onnx: tuple[Typed, Typed]


def _merged_then_trained(
    loaded: Loaded, choices: Sequence[Choice], inputs: Tensor, reporter: Reporter
) -> tuple[Compression, Proof, fx.GraphModule]:
    """The plan carried out, the proof that it was, and the network that training made of it."""
    compression = _carry_out(loaded, choices, reporter)
    merge = prove_network(compression.linearised, compression.merged, inputs, compression.proofs)
    return compression, merge, _fine_tuned(loaded, compression.merged, reporter)


def _trained_then_merged(
    loaded: Loaded, choices: Sequence[Choice], inputs: Tensor, reporter: Reporter
) -> tuple[Compression, Proof, fx.GraphModule]:
    """The same with what the plan removes fading while training; the merge at its end loses nothing."""
    decoupled = _fine_tuned(loaded, decouple(loaded.network, choices), reporter)
    reporter.stage("merge")
    compression = carry_out(settled(loaded.network, decoupled), choices, (), reporter.progress)
    merge = prove_network(decoupled, compression.merged, inputs, compression.proofs)
    return compression, merge, compression.merged


def _carry_out(loaded: Loaded, choices: Sequence[Choice], reporter: Reporter) -> Compression:
    reporter.stage("merge")
    batches = [inputs for inputs, _ in first(loaded.require_task().calibration_batches(), loaded.job.fit_samples)]
    return carry_out(loaded.network, choices, batches, reporter.progress)


def _fine_tuned(loaded: Loaded, model: fx.GraphModule, reporter: Reporter) -> fx.GraphModule:
    job = loaded.job
    if job.recipe is None:
        return model
    reporter.stage("fine-tune")
    name = job.training_name(sha256(job.plan_file))
    _start_from_the_same(model, job.output / f"{name}.start.safetensors")
    fine_tune(
        model,
        loaded.require_task(),
        job.recipe,
        checkpoint=job.output / f"{name}.checkpoint.safetensors",
        teacher=loaded.network.module,
        progress=reporter.progress,
    )
    return model


def _start_from_the_same(model: fx.GraphModule, path: Path) -> None:
    """Keep the weights that training starts from, or take those that an interrupted run started from.

    A fit that is solved again may differ in its last bits, and training goes on only from the very same start.
    """
    if not path.exists():
        write_bytes(path, save({name: value.contiguous() for name, value in model.state_dict().items()}))
        return
    try:
        model.load_state_dict(load_file(path))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise TableError(
            f"{path} is damaged: {str(error).splitlines()[0]}",
            hint="remove it, and the checkpoint of the same name, to train anew",
        ) from error


def _build(loaded: Loaded, delivered: fx.GraphModule, inputs: Tensor) -> _Engines:
    """Export and build both networks; write and verify the compressed one as it will be loaded."""
    job, shape = loaded.job, loaded.network.input_shape
    shapes = {INPUT: (job.batch, *shape)}
    export_onnx(fold_norms(loaded.network.module), shape, job.original_onnx)
    export_onnx(delivered, shape, job.output / COMPRESSED_ONNX)
    onnx = loaded.typed(job.original_onnx), loaded.typed(job.output / COMPRESSED_ONNX)
    original = loaded.runtime.build(onnx[0].path, job.options, shapes)
    loaded.runtime.build(onnx[1].path, job.options, shapes).save(job.output / ENGINE)
    engine = loaded.runtime.load(job.output / ENGINE, job.options)
    difference, outputs = verify_engine(engine, delivered, inputs, job.options.precision)
    write_checks(job.output / CHECKS, inputs, outputs)
    return _Engines(original, engine, difference, onnx)


def _measured(
    loaded: Loaded, engines: _Engines, delivered: fx.GraphModule, reporter: Reporter
) -> tuple[Figures, Figures]:
    """Figures of the original and of the compressed network, timed in turns."""
    reporter.stage("measure")
    timings = compare({"original": engines.original, "compressed": engines.compressed}, loaded.job.final_policy)
    reporter.stage("test")
    task = loaded.require_task()
    return (
        _figures(engines.original, fold_norms(loaded.network.module), timings["original"], task),
        _figures(engines.compressed, delivered, timings["compressed"], task),
    )


def _figures(engine: Engine, module: fx.GraphModule, timing: Timing, task: Task) -> Figures:
    """A network's figures; the test data is read here and nowhere else."""
    size = size_of(module)
    return Figures(
        latency_ms=timing.median_ns / 1e6,
        latency_ci_ms=(timing.ci_low_ns / 1e6, timing.ci_high_ns / 1e6),
        accuracy=score(engine_outputs(engine, task.test_batches()), task).accuracy,
        layers=size.layers,
        parameters=size.parameters,
        flops=size.flops,
    )


def _proof_figures(merge: Proof, fold: Proof, engine: float, compression: Compression) -> ProofFigures:
    return ProofFigures(
        merged_blocks=len(merge.blocks),
        folded_norms=len(fold.blocks),
        worst_block=max(merge.worst_block, fold.worst_block),
        merge_end_to_end=merge.end_to_end,
        fold_end_to_end=fold.end_to_end,
        engine=engine,
        samples=merge.samples,
        fitted_blocks={key: fitted.unexplained for key, fitted in compression.fits.items()},
    )


def _conversion(original: Typed, compressed: Typed) -> ConversionFigures | None:
    """What the precision costs; ``None`` where nothing was converted."""
    if compressed.path == compressed.source:
        return None
    layers = [asdict(layer) for layer in compressed.layers]
    for layer in layers:
        layer["weights"] = layer["weights"] if isfinite(layer["weights"]) else None
    return ConversionFigures(
        original=original.error, compressed=compressed.error, layers=[LayerFigures(**layer) for layer in layers]
    )


def _manifest(
    loaded: Loaded,
    file: PlanFile,
    figures: tuple[Figures, Figures],
    proof: ProofFigures,
    onnx: tuple[Typed, Typed],
) -> Manifest:
    job, (original, compressed), (_, delivered) = loaded.job, figures, onnx
    device = loaded.runtime.describe(job.options)
    converted = delivered.path != delivered.source
    drift = original.latency_ms * 1e6 / file.plan.original_ns
    return Manifest(
        files=hashes(job.output, list(dict.fromkeys([COMPRESSED_ONNX, delivered.path.name, ENGINE, CHECKS]))),
        engine=ENGINE,
        onnx=delivered.path.name,
        source=COMPRESSED_ONNX if converted else None,
        checks=CHECKS,
        batch=job.batch,
        batches=job.options.batches,
        device=DeviceFields(**asdict(device)),
        timing_cache=timing_cache_hash(device, job.options),
        simulated=loaded.profile.key.simulated,
        model=job.model,
        task=loaded.require_task().name,
        original=original,
        compressed=compressed,
        speedup=original.latency_ms / compressed.latency_ms,
        predicted_latency_ms=file.plan.latency_ms * drift,
        drift=drift,
        probability=probability(file.plan, file.certificate.budget_ns),
        refined=[_refined(file, one) for one in file.certificate.refined],
        plan=plan_fields(job.plan_file),
        proof=proof,
        conversion=_conversion(*onnx),
        seeds={} if job.recipe is None else {"training": job.recipe.seed},
        versions=versions(),
        git=git_state(),
    )


def _refined(file: PlanFile, one: Refined) -> RefinedPlan:
    drift = one.original_ns / file.plan.original_ns
    return RefinedPlan(
        rank=one.rank,
        measured_rank=one.measured_rank,
        predicted_ms=one.predicted_ns * drift / 1e6,
        measured_ms=one.measured_ns / 1e6,
        objective=one.objective,
        held_out_loss=one.loss,
        chosen=one.chosen,
    )


def _real_inputs(task: Task) -> Tensor:
    return torch.cat([inputs for inputs, _ in first(task.held_out_batches(), CHECKED_SAMPLES)])


def _write(job: Job, manifest: Manifest, also: Also | None) -> Result:
    write_manifest(job.output / MANIFEST, manifest)
    written = verify_delivery(job.output / MANIFEST).manifest  # as a user's machine will
    result = Result(written, job.output, also)
    write_report(job.output / REPORT, written)
    write_json(job.output / RESULT, result.as_json())
    return result
