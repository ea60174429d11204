"""How well sums over a profile predict whole networks: plans spread over the frontier, executed, and timed as engines.

No latency depends on a weight, so nothing of it needs data: where there is no importance table, plans are spread by
made-up losses, and blocks are fitted to random inputs. ``fidelity_correction`` knows what to make of errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from trt_layermerge.blocks.choice import Kind
from trt_layermerge.blocks.lowering import layers_of
from trt_layermerge.blocks.sized_choices import SizedChoice
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable
from trt_layermerge.latency.measure import compare
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.merging.reconstruction import PLAIN
from trt_layermerge.merging.sequential import execute_on
from trt_layermerge.network.inputs import batched_shapes, examples
from trt_layermerge.pipeline.fidelity_correction import PlanTiming
from trt_layermerge.pipeline.job_frontier import frontier_of, operations_of, weights_of
from trt_layermerge.pipeline.measuring import baseline_stage, importance_table, profile_stage
from trt_layermerge.pipeline.session import Session
from trt_layermerge.pipeline.solving import ChosenPlan, chosen, sized_in, with_kept
from trt_layermerge.planning.frontier import Frontier
from trt_layermerge.planning.plan import Plan
from trt_layermerge.progress import Reporter

FITTED_SAMPLES = 16
"""Random inputs that blocks are fitted to: enough for weights that are numbers."""

_ORIGINAL = "original"


@dataclass(frozen=True)
class MadeUpLosses:
    """Losses that spread plans over all latencies: by the layers that a choice changes, times a factor of its own.

    Attributes:
        path: What messages call it.
        layers: Layers of each choice that changes any, by its key; of each narrowed channel group, one.
    """

    path: Path
    layers: dict[str, int]

    def get(self, choice: str) -> ImportanceRow | None:
        """A row of a choice; the same in every run."""
        if choice not in self.layers:
            return None
        factor = 0.5 + int(hashlib.sha256(choice.encode()).hexdigest()[:8], 16) / 2**32
        return ImportanceRow(choice, 0.0, factor * self.layers[choice], 0.0, 0.0, None, 0.0)


def validation_stage(session: Session, count: int, reporter: Reporter) -> tuple[PlanTiming, ...]:
    """Predict and measure plans, from the fastest to the one that changes least.

    Args:
        session: The job; what its profile and its baseline lack is measured first.
        count: How many plans; there may be fewer.
        reporter: Told of every plan.

    Raises:
        UsageError: The network has no plan but itself.
        LayerMergeError: See the stages.
    """
    profile_stage(session, reporter)
    baseline = baseline_stage(session, reporter)
    losses = _losses(session)
    frontier = frontier_of(session, baseline, losses, corrected=False)
    plans = tuple(with_kept(plan, losses) for plan in spread(frontier, count))
    if not plans:
        raise UsageError(
            f"{session.network.name} has no plan to validate: no choice is faster than keeping its layers",
            hint="allow more: --max-kernel, --max-layers, --method joint; trt-layermerge inspect shows what there is",
        )
    reporter.stage("validate")
    return _timed(session, baseline, plans, reporter)


def spread(frontier: Frontier, count: int) -> tuple[Plan, ...]:
    """Plans of a frontier that change something, at latencies as even as there are."""
    changing = [number for number in range(len(frontier)) if _changes(frontier.plan(number))]
    if not changing:
        return ()
    latencies = frontier.latency_ns[changing]
    aims = np.linspace(latencies[0], latencies[-1], count)
    nearest = {changing[int(np.abs(latencies - aim).argmin())] for aim in aims}
    return tuple(frontier.plan(number) for number in sorted(nearest))


def _changes(plan: Plan) -> bool:
    narrowed = any(width.channels < width.full for width in plan.widths)
    return narrowed or any(item.kind != Kind.KEEP for item in plan.items)


def _losses(session: Session) -> ImportanceTable | MadeUpLosses:
    """The importance table of the job, if it is there; else something that does as well for latencies."""
    if session.task is not None and session.job.importance_file.exists():
        return importance_table(session)
    changed = [choice for choice in session.choices if choice.kind is not Kind.KEEP]
    layers = {choice.key: len(layers_of(session.network, choice.block)) for choice in changed}
    return MadeUpLosses(session.job.importance_file, layers | {one.key: 1 for one in session.narrowed})


def _timed(session: Session, baseline: Timing, plans: Sequence[Plan], reporter: Reporter) -> tuple[PlanTiming, ...]:
    job, shapes = session.job, batched_shapes(session.network.inputs, session.job.batch)
    executed = [chosen(session, plan) for plan in plans]
    engines = {_ORIGINAL: session.runtime.build(session.typed(session.original).path, job.options, shapes)}
    with TemporaryDirectory(dir=job.output) as folder:
        for number, made in enumerate(executed):
            reporter.progress(number, len(plans) + 1, f"plan {number + 1}")
            path = Path(folder) / f"{number}.onnx"
            _write(session, made, path)
            engines[str(number)] = session.runtime.build(session.typed(path).path, job.options, shapes)
        reporter.progress(len(plans), len(plans) + 1, "time all of them interleaved")
        timings = compare(engines, job.final_policy)
    reporter.progress(len(plans) + 1, len(plans) + 1, "")
    kept = [session.sized[choice][0] for choice in session.choices if choice.kind is Kind.KEEP]
    sized = [tuple(sized_in(session, plan)) for plan in plans]
    return tuple(
        PlanTiming(
            predicted=plan.latency_ns / baseline.median_ns,
            measured=timings[str(number)].median_ns / timings[_ORIGINAL].median_ns,
            measured_ns=timings[str(number)].median_ns,
            removed=_gone(operations_of, sized[number], kept),
            doubt=hypot(*(one.relative_ci for one in (baseline, timings[_ORIGINAL], timings[str(number)]))),
            weights=_gone(weights_of, sized[number], kept),
        )
        for number, plan in enumerate(plans)
    )


def _gone(amount: Callable[[SizedChoice], int], left: Iterable[SizedChoice], kept: Iterable[SizedChoice]) -> float:
    """The share of what the layers of the original have that a plan does without."""
    return 1 - sum(map(amount, left)) / max(sum(map(amount, kept)), 1)


def _write(session: Session, plan: ChosenPlan, path: Path) -> None:
    """A plan as ONNX, its blocks fitted to random inputs."""
    inputs = [examples(session.network.inputs, FITTED_SAMPLES)]
    made = execute_on(session.computes_on, session.network, plan.choices, inputs, strength=PLAIN, kept=plan.kept)
    export_onnx(fold_norms(made.merged), session.network.inputs, path)
