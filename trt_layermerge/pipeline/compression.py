"""The whole job: plan, carry the plan out, fine-tune, prove, deliver, verify, measure, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
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
    write_manifest,
)
from trt_layermerge.delivery.per_network import PerNetwork
from trt_layermerge.delivery.typed_onnx import Typed, typed_path
from trt_layermerge.delivery.verification import engine_outputs, verify_delivery, verify_engine, write_checks
from trt_layermerge.errors import IncompatibleError
from trt_layermerge.files import sha256, write_json
from trt_layermerge.importance.evaluator import first
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.locks import exclusive
from trt_layermerge.log import record
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.proof import Proof, prove_folds, prove_network
from trt_layermerge.network.count import size_of
from trt_layermerge.network.inputs import Values, batched_shapes, joined
from trt_layermerge.pipeline.final_engines import Route, fastest_route, timed_finally
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.job_evidence import evidence_of
from trt_layermerge.pipeline.outcome import better_of, promised, require_as_planned
from trt_layermerge.pipeline.refine import refine_stage
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import chosen, plan_stage
from trt_layermerge.pipeline.training import Executed, execute_and_train
from trt_layermerge.planning.confidence import probability
from trt_layermerge.planning.plan import PlanFile, Refined
from trt_layermerge.progress import Reporter
from trt_layermerge.report.evidence import Evidence
from trt_layermerge.report.html import write_report
from trt_layermerge.report.result import MANIFEST, REPORT, RESULT, Result
from trt_layermerge.report.summary import prediction_of
from trt_layermerge.runtimes.base import Engine, Shape
from trt_layermerge.training.evaluate import final_accuracy
from trt_layermerge.training.task import Task, metric_name
from trt_layermerge.training.task_check import check_task
from trt_layermerge.versions import versions

_LOG = logging.getLogger(__name__)

CHECKED_SAMPLES = 64
"""Real inputs of the end-to-end comparisons, taken from the held-out data."""

COMPRESSED_ONNX, CHECKS = "compressed.onnx", "checks.safetensors"


@dataclass(frozen=True)
class Compressed:
    """A network that is compressed, trained and proved, and not delivered yet.

    Attributes:
        session: The job.
        plan_file: The plan that it follows, with its certificate.
        plan_hash: Hash of the file that this is in.
        module: The network, for torch: in evaluation mode, its norms folded.
        executed: How it came about.
        folds: Proof that folding its norms changes nothing.
        cautions: What is to be known before it is trusted.
    """

    session: Session
    plan_file: PlanFile
    plan_hash: str
    module: fx.GraphModule = field(repr=False)
    executed: Executed = field(repr=False)
    folds: Proof = field(repr=False)
    cautions: tuple[str, ...]

    @property
    def slowed_lr(self) -> float | None:
        """The peak learning rate that training ended with, where it diverged at the recipe's."""
        training = self.executed.training
        return training.lr if training is not None and training.backoffs else None


def compress(session: Session, reporter: Reporter) -> Compressed:
    """Plan, merge, fine-tune and prove; interrupted, the same call goes on where it stopped.

    Raises:
        InputError: Another process is at work in the same folder.
        LayerMergeError: See the stages; what was measured and trained until then is on disk.
    """
    check_task(session.require_task(), session.network.inputs, ("test_batches",))  # which is read at the end
    with exclusive(session.job.output):
        cautions = session.cautions  # before hours on data that nothing can be measured on
        file = refine_stage(session, reporter) if session.job.refine else plan_stage(session, reporter)
        plan_hash, inputs = sha256(session.job.plan_file), _real_inputs(session.require_task())
        executed = execute_and_train(session, chosen(session, file.plan), inputs, reporter)
        reporter.stage("prove")
        promise = promised(session, file.plan)
        better, worsened = better_of(session, promise, executed.trained, executed.untrained)
        module = fold_norms(better)
        cautions += worsened + require_as_planned(session, promise, module)
        folds = prove_network(better, module, inputs, prove_folds(better))
        _tell_proof(executed.proof, folds)
        return Compressed(session, file, plan_hash, module, executed, folds, cautions)


def deliver(compressed: Compressed, reporter: Reporter) -> Result:
    """Build, verify, time and test engines of both networks, and write down what a user needs of them.

    Raises:
        InputError: Another process is at work in the same folder.
        IncompatibleError: The job has been planned anew since.
        LayerMergeError: See the stages.
    """
    session, job = compressed.session, compressed.session.job
    with exclusive(job.output):
        if not job.plan_file.exists() or sha256(job.plan_file) != compressed.plan_hash:
            raise IncompatibleError(
                f"{job.plan_file} is another plan than that of this network", hint="compress again, and deliver that"
            )
        reporter.stage("deliver")
        made = _build(session, compressed.module, _real_inputs(session.require_task()))
        figures = _measured(session, made, compressed.module, reporter)
        manifest = _manifest(session, compressed.plan_file, figures, _proof_figures(compressed, made.difference), made)
        said = prediction_of(manifest).objection
        cautions = compressed.cautions if said is None else (*compressed.cautions, said)
        result = Result(manifest, job.output, _also(session, reporter), compressed.slowed_lr, cautions)
        return _write(job, result, evidence_of(session, compressed.plan_file.plan))


def whole_job(session: Session, reporter: Reporter) -> Result:
    """Compress, and deliver.

    Raises:
        LayerMergeError: See both.
    """
    return deliver(compress(session, reporter), reporter)


def _tell_proof(merges: Proof, folds: Proof) -> None:
    worst = max(merges.worst_block, folds.worst_block)
    counts = {"merged_blocks": len(merges.blocks), "folded_norms": len(folds.blocks), "worst_block": worst}
    record(_LOG.info, "proof", "proved %d merges and %d folds", *list(counts.values())[:2], **counts)


def _also(session: Session, reporter: Reporter) -> Also | None:
    job = session.job
    if job.also is None:
        return None
    reporter.stage("also")
    shapes = batched_shapes(session.network.inputs, job.batch)
    sources = PerNetwork(job.original_onnx, job.output / COMPRESSED_ONNX)
    models = sources.map(lambda source: typed_path(source, job.options.precision))
    return build_also(job.also, models, job.options, shapes, job.final_policy, job.key)


@dataclass(frozen=True)
class _Built:
    """Both networks as ONNX and as engines, and how far the compressed engine is from its PyTorch network."""

    onnx: PerNetwork[Typed]
    routes: PerNetwork[Route]
    engines: PerNetwork[Engine]
    difference: float


def _engine_name(session: Session) -> str:
    return f"compressed{session.runtime.kind.suffix}"


def _build(session: Session, delivered: fx.GraphModule, inputs: Values) -> _Built:
    """Export and build both networks; write and verify the compressed one as it will be loaded."""
    job, given = session.job, session.network.inputs
    shapes = batched_shapes(given, job.batch)
    export_onnx(delivered, given, job.output / COMPRESSED_ONNX)
    onnx = PerNetwork(session.original, job.output / COMPRESSED_ONNX).map(session.typed)
    modules = PerNetwork(fold_norms(session.network.module), delivered)
    routes = PerNetwork(*(_route(session, *one, shapes, inputs) for one in zip(onnx, modules, strict=True)))
    original = session.runtime.build(onnx.original.path, routes.original.options, shapes)
    made = session.runtime.build(onnx.compressed.path, routes.compressed.options, shapes)
    made.save(job.output / _engine_name(session))
    engine = session.runtime.load(job.output / _engine_name(session), routes.compressed.options)
    difference, outputs = verify_engine(engine, delivered, inputs, job.options.precision)
    write_checks(job.output / CHECKS, [item.name for item in given], inputs, outputs, session.network.outputs)
    return _Built(onnx, routes, PerNetwork(original, engine), difference)


def _route(session: Session, onnx: Typed, module: fx.GraphModule, shapes: Mapping[str, Shape], inputs: Values) -> Route:
    precision = session.job.options.precision
    return fastest_route(session, onnx.path, shapes, lambda engine: verify_engine(engine, module, inputs, precision))


def _measured(session: Session, made: _Built, delivered: fx.GraphModule, reporter: Reporter) -> PerNetwork[Figures]:
    """Figures of both networks, timed interleaved."""
    reporter.stage("measure")
    timings = timed_finally(session, made.engines, made.onnx.map(lambda one: one.path), made.routes)
    reporter.stage("test")
    modules = PerNetwork(fold_norms(session.network.module), delivered)
    each = zip(made.engines, modules, timings, made.routes, strict=True)
    return PerNetwork(*(_figures(session, *one) for one in each))


def _figures(session: Session, engine: Engine, module: fx.GraphModule, timing: Timing, route: Route) -> Figures:
    """A network's figures; the test data is read here and nowhere else."""
    size, task = size_of(module), session.require_task()
    host = session.runtime.host_times(engine, session.job.final_policy.min_samples)
    return Figures(
        latency_ms=timing.median_ns / 1e6,
        latency_ci_ms=(timing.ci_low_ns / 1e6, timing.ci_high_ns / 1e6),
        accuracy=final_accuracy(engine_outputs(engine, task.test_batches()), task),
        layers=size.layers,
        parameters=size.parameters,
        flops=size.flops,
        depth=size.depth,
        peak_activation_bytes=session.job.batch * size.peak_bytes,
        launches=session.runtime.launches(engine),
        latency_p90_ms=None if timing.p90_ns is None else timing.p90_ns / 1e6,
        latency_p99_ms=None if timing.p99_ns is None else timing.p99_ns / 1e6,
        host_latency_ms=None if host is None else float(np.median(host)) / 1e6,
        builds=timing.builds if timing.builds > 1 else None,
        build_spread=timing.build_spread,
        build_route=route.name,
    )


def _agreement(session: Session, engine: Engine) -> dict[str, float] | None:
    """Agreement of each output on the test data; ``None`` where there are labels."""
    task = session.comparison
    if task is None:
        return None
    found = [task.agreements(*pair) for pair in engine_outputs(engine, task.test_batches())]
    return {name: float(torch.cat(one).mean()) for name, *one in zip(task.distances, *found, strict=True)}


def _proof_figures(compressed: Compressed, engine: float) -> ProofFigures:
    merge, fold, compression = compressed.executed.proof, compressed.folds, compressed.executed.compression
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
    session: Session,
    file: PlanFile,
    figures: PerNetwork[Figures],
    proof: ProofFigures,
    made: _Built,
) -> Manifest:
    job, original, compressed, onnx = session.job, figures.original, figures.compressed, made.onnx
    delivered = onnx.compressed
    device = session.runtime.describe(job.options)
    converted = delivered.path != delivered.source
    drift = original.latency_ms * 1e6 / file.plan.original_ns
    names = [job.original_onnx.name, onnx.original.path.name, COMPRESSED_ONNX, delivered.path.name]
    return Manifest(
        files=hashes(job.output, list(dict.fromkeys([*names, _engine_name(session), CHECKS]))),
        engine=_engine_name(session),
        onnx=delivered.path.name,
        source=COMPRESSED_ONNX if converted else None,
        checks=CHECKS,
        batch=job.batch,
        batches=job.options.batches,
        device=device,
        timing_cache=timing_cache_hash(device, job.options),
        simulated=session.profile.key.device.simulated,
        model=job.model,
        task=session.require_task().name,
        metric=metric_name(session.require_task()),
        agreement=_agreement(session, made.engines.compressed),
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


def _write(job: Job, result: Result, evidence: Evidence) -> Result:
    """Write what people read, and then the manifest, which has the hashes of it all."""
    write_report(job.output / REPORT, result.manifest, evidence, result.cautions)
    write_json(job.output / RESULT, result.as_json())
    listed = result.manifest.files | hashes(job.output, [REPORT, RESULT])
    write_manifest(job.output / MANIFEST, result.manifest.model_copy(update={"files": listed}), job.key)
    files = {what: str(path) for what, path in result.files.items()}
    record(_LOG.info, "delivered", "%s: %.2fx", files["engine"], result.manifest.speedup, **files)
    signed_by = None if job.key is None else job.key.public
    verified = verify_delivery(job.output / MANIFEST, signed_by=signed_by)  # as a user's machine will
    return replace(result, manifest=verified.manifest)
