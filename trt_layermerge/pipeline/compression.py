"""The whole job: plan, carry the plan out, fine-tune, prove, deliver, verify, measure, report."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, fx

from trt_layermerge.delivery.also import Also, build_also
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.manifest import (
    ConversionFigures,
    Figures,
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
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.delivery.typed import Typed, typed_path
from trt_layermerge.delivery.verification import engine_outputs, verify_delivery, verify_engine, write_checks
from trt_layermerge.files import exclusive, write_json
from trt_layermerge.importance.judge import first
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_folds, prove_network
from trt_layermerge.merging.sequential import Compression
from trt_layermerge.network.count import size_of
from trt_layermerge.network.inputs import Values, batched_shapes, joined
from trt_layermerge.pipeline.job import Job, Reporter
from trt_layermerge.pipeline.loading import Loaded
from trt_layermerge.pipeline.refine import refine_stage
from trt_layermerge.pipeline.solving import chosen, plan_stage
from trt_layermerge.pipeline.training import carry_out_and_train
from trt_layermerge.planning.confidence import probability
from trt_layermerge.planning.plan import PlanFile, Refined
from trt_layermerge.report.html import write_report
from trt_layermerge.report.result import MANIFEST, REPORT, RESULT, Result
from trt_layermerge.runtimes.base import Engine
from trt_layermerge.training.check import check_task
from trt_layermerge.training.evaluate import score
from trt_layermerge.training.task import Task, metric_name

CHECKED_SAMPLES = 64
"""Real inputs of the end-to-end comparisons, taken from the held-out data."""

COMPRESSED_ONNX, CHECKS = "compressed.onnx", "checks.safetensors"


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
    made = _build(loaded, delivered, inputs)
    figures = _measured(loaded, made.engines, delivered, reporter)
    proof = _proof_figures(carried.proof, fold, made.difference, carried.compression)
    manifest = _manifest(loaded, file, figures, proof, made.onnx)
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
class _Built:
    """Both networks as ONNX and as engines, and how far the compressed engine is from its PyTorch network."""

    onnx: PerNetwork[Typed]
    engines: PerNetwork[Engine]
    difference: float


def _engine_name(loaded: Loaded) -> str:
    return f"compressed{loaded.runtime.kind.suffix}"


def _build(loaded: Loaded, delivered: fx.GraphModule, inputs: Values) -> _Built:
    """Export and build both networks; write and verify the compressed one as it will be loaded."""
    job, given = loaded.job, loaded.network.inputs
    shapes = batched_shapes(given, job.batch)
    export_onnx(delivered, given, job.output / COMPRESSED_ONNX)
    onnx = PerNetwork(loaded.original, job.output / COMPRESSED_ONNX).map(loaded.typed)
    original = loaded.runtime.build(onnx.original.path, job.options, shapes)
    loaded.runtime.build(onnx.compressed.path, job.options, shapes).save(job.output / _engine_name(loaded))
    engine = loaded.runtime.load(job.output / _engine_name(loaded), job.options)
    difference, outputs = verify_engine(engine, delivered, inputs, job.options.precision)
    write_checks(job.output / CHECKS, [item.name for item in given], inputs, outputs)
    return _Built(onnx, PerNetwork(original, engine), difference)


def _measured(
    loaded: Loaded, engines: PerNetwork[Engine], delivered: fx.GraphModule, reporter: Reporter
) -> PerNetwork[Figures]:
    """Figures of both networks, timed in turns."""
    reporter.stage("measure")
    timings = PerNetwork(**compare(engines.named, loaded.job.final_policy))
    reporter.stage("test")
    modules = PerNetwork(fold_norms(loaded.network.module), delivered)
    task, batch = loaded.require_task(), loaded.job.batch
    return PerNetwork(*(_figures(*one, task, batch) for one in zip(engines, modules, timings, strict=True)))


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


def _conversion(onnx: PerNetwork[Typed]) -> ConversionFigures | None:
    """What the precision costs; ``None`` where nothing was converted."""
    if onnx.compressed.path == onnx.compressed.source:
        return None
    return ConversionFigures(
        original=onnx.original.error, compressed=onnx.compressed.error, layers=onnx.compressed.layers
    )


def _manifest(
    loaded: Loaded,
    file: PlanFile,
    figures: PerNetwork[Figures],
    proof: ProofFigures,
    onnx: PerNetwork[Typed],
) -> Manifest:
    job, original, compressed = loaded.job, figures.original, figures.compressed
    delivered = onnx.compressed
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
        device=device,
        timing_cache=timing_cache_hash(device, job.options),
        simulated=loaded.profile.key.device.simulated,
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
        conversion=_conversion(onnx),
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
