"""The whole job: plan, carry the plan out, fine-tune, prove, deliver, verify, measure, report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from torch import Tensor, fx

from trt_layermerge.delivery.export import export_onnx
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
from trt_layermerge.files import exclusive, write_json
from trt_layermerge.importance.judge import first
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_folds, prove_network
from trt_layermerge.merging.sequential import Compression
from trt_layermerge.network.count import size_of
from trt_layermerge.network.inputs import Values, batched_shapes, joined
from trt_layermerge.pipeline.also import Also, build_also
from trt_layermerge.pipeline.job import Job, Reporter
from trt_layermerge.pipeline.loading import Loaded
from trt_layermerge.pipeline.refine import refine_stage
from trt_layermerge.pipeline.solving import chosen, plan_stage
from trt_layermerge.pipeline.training import carry_out_and_train
from trt_layermerge.planning.confidence import probability
from trt_layermerge.planning.plan import PlanFile, Refined
from trt_layermerge.report.html import write_report
from trt_layermerge.runtimes.protocol import Engine
from trt_layermerge.training.check import check_task
from trt_layermerge.training.evaluate import score
from trt_layermerge.training.task import Task, metric_name

CHECKED_SAMPLES = 64
"""Real inputs of the end-to-end comparisons, taken from the held-out data."""

COMPRESSED_ONNX, CHECKS = "compressed.onnx", "checks.safetensors"
MANIFEST, REPORT, RESULT = "manifest.json", "report.html", "result.json"


@dataclass(frozen=True)
class Result:
    """What a job made.

    Attributes:
        manifest: As it was written.
        folder: Where everything lies.
        also: The engine for another runtime, where the job asked for one.
        slowed_lr: The peak learning rate that training ended with, where it diverged at the recipe's.
    """

    manifest: Manifest
    folder: Path
    also: Also | None = None
    slowed_lr: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that ``compress --json`` prints."""
        manifest = self.manifest
        said: dict[str, Any] = {"simulated": True} if manifest.simulated else {}  # beside what is no measurement
        said |= {"metric": manifest.metric} if manifest.metric else {}  # and beside what is no accuracy
        return (
            said
            | {
                "original": manifest.original.model_dump(mode="json"),
                "compressed": manifest.compressed.model_dump(mode="json"),
                "speedup": manifest.speedup,
                "predicted_latency_ms": manifest.predicted_latency_ms,
                "proof": manifest.proof.model_dump(mode="json"),
                "engine": str(self.folder / manifest.engine),
                "manifest": str(self.folder / MANIFEST),
                "report": str(self.folder / REPORT),
            }
            | ({} if self.slowed_lr is None else {"slowed_lr": self.slowed_lr})
            | self._also_as_json()
        )

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
    check_task(loaded.require_task(), loaded.network.inputs, ("test_batches",))  # which is read at the end
    with exclusive(loaded.job.output):
        return _compress(loaded, reporter)


def _compress(loaded: Loaded, reporter: Reporter) -> Result:
    file = refine_stage(loaded, reporter) if loaded.job.refine else plan_stage(loaded, reporter)
    inputs = _real_inputs(loaded.require_task())
    carried = carry_out_and_train(loaded, chosen(loaded, file.plan), inputs, reporter)
    reporter.stage("prove")
    delivered = fold_norms(carried.trained)
    fold = prove_network(carried.trained, delivered, inputs, prove_folds(carried.trained))
    reporter.stage("deliver")
    engines = _build(loaded, delivered, inputs)
    original, compressed = _measured(loaded, engines, delivered, reporter)
    proof = _proof_figures(carried.proof, fold, engines.difference, carried.compression)
    manifest = _manifest(loaded, file, (original, compressed), proof, engines.onnx)
    slowed_lr = carried.training.lr if carried.training is not None and carried.training.backoffs else None
    return _write(loaded.job, Result(manifest, loaded.job.output, _also(loaded, reporter), slowed_lr))


def _also(loaded: Loaded, reporter: Reporter) -> Also | None:
    job = loaded.job
    if job.also is None:
        return None
    reporter.stage("also")
    shapes = batched_shapes(loaded.network.inputs, job.batch)
    onnx = typed_path(job.output / COMPRESSED_ONNX, job.options.precision)
    return build_also(job.also, onnx, job.options, shapes)


@dataclass(frozen=True)
class _Engines:
    """Both networks as engines and as ONNX, and how far the compressed engine is from its PyTorch network."""

    original: Engine
    compressed: Engine
    difference: float
    onnx: tuple[Typed, Typed]


def _engine_name(loaded: Loaded) -> str:
    """ONNX Runtime's engines are ONNX files still."""
    return f"compressed.engine{'.onnx' if loaded.runtime.name.startswith('onnxruntime') else ''}"


def _build(loaded: Loaded, delivered: fx.GraphModule, inputs: Values) -> _Engines:
    """Export and build both networks; write and verify the compressed one as it will be loaded."""
    job, given = loaded.job, loaded.network.inputs
    shapes = batched_shapes(given, job.batch)
    export_onnx(fold_norms(loaded.network.module), given, job.original_onnx)
    export_onnx(delivered, given, job.output / COMPRESSED_ONNX)
    onnx = loaded.typed(job.original_onnx), loaded.typed(job.output / COMPRESSED_ONNX)
    original = loaded.runtime.build(onnx[0].path, job.options, shapes)
    loaded.runtime.build(onnx[1].path, job.options, shapes).save(job.output / _engine_name(loaded))
    engine = loaded.runtime.load(job.output / _engine_name(loaded), job.options)
    difference, outputs = verify_engine(engine, delivered, inputs, job.options.precision)
    write_checks(job.output / CHECKS, [item.name for item in given], inputs, outputs)
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
        _figures(engines.original, fold_norms(loaded.network.module), timings["original"], task, loaded.job.batch),
        _figures(engines.compressed, delivered, timings["compressed"], task, loaded.job.batch),
    )


def _figures(engine: Engine, module: fx.GraphModule, timing: Timing, task: Task, batch: int) -> Figures:
    """A network's figures; the test data is read here and nowhere else."""
    size = size_of(module)
    return Figures(
        latency_ms=timing.median_ns / 1e6,
        latency_ci_ms=(timing.ci_low_ns / 1e6, timing.ci_high_ns / 1e6),
        accuracy=score(engine_outputs(engine, task.test_batches()), task).accuracy,
        layers=size.layers,
        parameters=size.parameters,
        flops=size.flops,
        depth=size.depth,
        peak_activation_bytes=batch * size.peak_bytes,
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
        refitted_layers={key: fitted.unexplained for key, fitted in compression.refits.items()},
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
        files=hashes(
            job.output, list(dict.fromkeys([COMPRESSED_ONNX, delivered.path.name, _engine_name(loaded), CHECKS]))
        ),
        engine=_engine_name(loaded),
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
        metric=metric_name(loaded.require_task()),
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


def _real_inputs(task: Task) -> tuple[Tensor, ...]:
    return joined(inputs for inputs, _ in first(task.held_out_batches(), CHECKED_SAMPLES))


def _write(job: Job, result: Result) -> Result:
    write_manifest(job.output / MANIFEST, result.manifest)
    result = replace(result, manifest=verify_delivery(job.output / MANIFEST).manifest)  # as a user's machine will
    write_report(job.output / REPORT, result.manifest)
    write_json(job.output / RESULT, result.as_json())
    return result
