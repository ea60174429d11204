"""The stages up to the plan: load, profile, baseline, importance, solve. Each can be run alone; each resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.cost import signatures
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.delivery.export import export_onnx
from trt_layermerge.delivery.typed import Typed, write_typed
from trt_layermerge.errors import TableError, TaskError, UsageError
from trt_layermerge.files import require_writable, write_json
from trt_layermerge.importance.estimate import measure, table_key
from trt_layermerge.importance.judge import first
from trt_layermerge.importance.table import ImportanceTable
from trt_layermerge.latency.anchored import anchored
from trt_layermerge.latency.measure import estimate_seconds, fill, missing
from trt_layermerge.latency.profile import Profile, ProfileKey, read_timing
from trt_layermerge.latency.statistics import Timing
from trt_layermerge.merging.fold import fold_norms
from trt_layermerge.network.inputs import batched_shapes
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.pipeline.job import Job, Reporter
from trt_layermerge.planning.confidence import plan_for
from trt_layermerge.planning.frontier import Frontier, solve
from trt_layermerge.planning.methods import JOINT, Candidate, formulate, method_named
from trt_layermerge.planning.plan import Plan, PlanFile, Refined, read_plan, write_plan
from trt_layermerge.runtimes.protocol import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.check import check_task, sample_shape
from trt_layermerge.training.datasets import Settings
from trt_layermerge.training.load import load_task
from trt_layermerge.training.task import Task

BASELINE = "trt_layermerge.baseline"

CONVERSION_SAMPLES = 256
"""Real inputs that a conversion to FP16 is checked on, and one to INT8 calibrated."""

_CONVERSION_BATCH = 16


@dataclass(frozen=True)
class Loaded:
    """A job with what it names loaded.

    Attributes:
        job: Its settings.
        network: The original.
        choices: All choices that its method may take.
        runtime: Where latencies are measured.
        profile: The device's lookup table.
        task: Data, loss and metric, where the job names a task.
    """

    job: Job
    network: Network
    choices: tuple[Choice, ...]
    runtime: Runtime
    profile: Profile
    task: Task | None

    @property
    def device(self) -> dict[str, Any]:
        """What latencies depend on besides the network."""
        return asdict(self.profile.key)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the plan."""
        return self.job.fingerprint(self.network.weights_hash, self.device)

    def signatures(self, choice: Choice) -> tuple[Signature, ...]:
        """What a choice executes."""
        return signatures(self.network.chains[choice.block.chain], choice, self.job.setting)

    def typed(self, source: Path) -> Typed:
        """An FP32 ONNX file of the job in the precision that its engines are built in, written beside it."""
        precision = self.job.options.precision
        return write_typed(source, precision, [] if precision == "fp32" else self._conversion_batches())

    def _conversion_batches(self) -> list[Tensor]:
        batches = first(self.require_task().calibration_batches(), CONVERSION_SAMPLES)
        return list(torch.split(torch.cat([inputs for inputs, _ in batches]), _CONVERSION_BATCH))

    def require_task(self) -> Task:
        """The task.

        Raises:
            UsageError: The job names none.
        """
        if self.task is None:
            raise UsageError(
                "importance is measured on data, and no task is given",
                hint="pass --task FILE.py, a file with a function task(); examples/fashion_mnist/task.py is one",
            )
        return self.task


def load(job: Job) -> Loaded:
    """Load everything that a job names, and fail before anything long begins.

    Raises:
        LayerMergeError: Something is missing, or does not fit together.
    """
    for folder in (job.output, job.profiles):
        require_writable(folder)
    method_named(job.method)
    if job.recipe is not None and job.recipe.decouple and job.method == JOINT.name:
        raise UsageError(
            "decoupling carries out merges alone, and method joint plans fits",
            hint="add --method depth, layermerge or layer-only; or --decouple 0",
        )
    runtime = get_runtime(job.runtime)
    task = None if job.task is None else load_task(job.task, _task_settings(job))
    # The data decides: a factory's own input shape is only a default.
    shape = job.input_shape or (None if task is None else sample_shape(task))
    network = load_network(job.model, job.weights, shape)
    if task is not None:
        _require_one_input(network)
        check_task(task, network.input_shape)
    key = ProfileKey.of(runtime.describe(_isolated(job)))
    profile = Profile.open(Profile.path_for(job.profiles, key), key)
    return Loaded(job, network, for_method(choices_of(network, job.limits), job.method), runtime, profile, task)


def _task_settings(job: Job) -> Settings:
    """What a job says of a task that it names."""
    size = None if job.input_shape is None else job.input_shape[-1]
    recipe = job.recipe
    return Settings(size) if recipe is None else Settings(size, recipe.batch_size, recipe.label_smoothing)


def _require_one_input(network: Network) -> None:
    """See that a task can feed a network.

    Raises:
        TaskError: The network has several inputs; the batches of a task have one.
    """
    if len(network.inputs) > 1:
        names = ", ".join(item.name for item in network.inputs)
        raise TaskError(
            f"{network.name} takes {len(network.inputs)} inputs ({names}); the batches of a task hold one",
            hint="inspect, profile and solve on tables of your own work with several inputs; importance and compress "
            "do not yet",
        )


def for_method(choices: Iterable[Choice], method: str) -> tuple[Choice, ...]:
    """The choices that a method may take.

    The papers' methods know no fits; ``depth`` drops no convolution, ``layer-only`` merges none. Ours takes a ``merge``
    only where there is no ``fit`` of the same convolution: that has the same latency, and the product of the weights is
    one of the points that the fit is the best of.
    """
    choices = tuple(choices)
    if method == "depth":
        return tuple(choice for choice in choices if choice.kind is Kind.KEEP or _keeps_all(choice))
    if method == "layer-only":
        return tuple(choice for choice in choices if choice.kind is Kind.KEEP or _drops_one(choice))
    if method != "joint":
        return tuple(choice for choice in choices if choice.kind is not Kind.FIT)
    fitted = {(choice.block, choice.geometry) for choice in choices if choice.kind is Kind.FIT}
    return tuple(
        choice for choice in choices if choice.kind is not Kind.MERGE or (choice.block, choice.geometry) not in fitted
    )


def _keeps_all(choice: Choice) -> bool:
    """Whether it merges several layers and drops none; of a single layer, ``keep`` is all there is to that."""
    return choice.kind is Kind.MERGE and len(choice.block) > 1 and len(choice.kept) == len(choice.block)


def _drops_one(choice: Choice) -> bool:
    """Whether it drops the convolution of one layer."""
    return choice.kind is Kind.IDENTITY and len(choice.block) == 1 and choice.reducible


def profile_stage(loaded: Loaded, reporter: Reporter) -> None:
    """Measure every signature that the profile does not hold yet."""
    reporter.stage("profile")
    wanted = [signature for choice in loaded.choices for signature in loaded.signatures(choice)]
    fill(loaded.profile, wanted, loaded.runtime, _isolated(loaded.job), loaded.job.policy, reporter.progress)


def profile_plan(loaded: Loaded) -> tuple[int, float]:
    """How many signatures are still to be measured, and an estimate of the seconds it takes."""
    wanted = [signature for choice in loaded.choices for signature in loaded.signatures(choice)]
    policy = loaded.job.policy
    return len(missing(wanted, loaded.profile, policy)), estimate_seconds(wanted, loaded.profile, policy)


def baseline_stage(loaded: Loaded, reporter: Reporter) -> Timing:
    """Measured end-to-end latency of the original, at the speed that the machine had when its profile was filled.

    It is kept, so that a plan made later rests on the same figure.
    """
    job = loaded.job
    key = {"weights": loaded.network.weights_hash, "device": loaded.device, "batch": job.batch}
    if (known := _read_baseline(job.baseline_file, key)) is not None:
        return known
    reporter.stage("baseline")
    export_onnx(fold_norms(loaded.network.module), loaded.network.inputs, job.original_onnx)
    shapes = batched_shapes(loaded.network.inputs, job.batch)
    engine = loaded.runtime.build(loaded.typed(job.original_onnx).path, job.options, shapes)
    blocks = (one for choice in loaded.choices if choice.kind is Kind.KEEP for one in loaded.signatures(choice))
    timing, pace = anchored(engine, loaded.profile, blocks, loaded.runtime, _isolated(job), job.policy)
    write_json(job.baseline_file, {"format": BASELINE, "version": 1, **key, **asdict(timing), "pace": round(pace, 4)})
    return timing


def importance_stage(loaded: Loaded, reporter: Reporter, choices: Iterable[Choice] | None = None) -> ImportanceTable:
    """Measure what choices do to the network; without ``choices``, all of them."""
    reporter.stage("importance")
    table = importance_table(loaded)
    wanted = loaded.choices if choices is None else choices
    measure(loaded.network, wanted, loaded.require_task(), table, loaded.job.estimation, reporter.progress)
    return table


def importance_table(loaded: Loaded) -> ImportanceTable:
    """The importance table of a job as it is.

    Raises:
        IncompatibleError: The one on disk belongs to another network, task or split.
        TableError: It is damaged.
    """
    key = table_key(loaded.network, loaded.require_task(), loaded.job.estimation)
    return ImportanceTable.open(loaded.job.importance_file, key)


def latency_ns(loaded: Loaded, choice: Choice) -> int | None:
    """Latency of a choice from the profile in ns; ``None`` where it is not known."""
    interval = _interval_ns(loaded, choice)
    return None if interval is None else interval[1]


def _interval_ns(loaded: Loaded, choice: Choice) -> tuple[int, int, int] | None:
    """Latency of a choice in ns between the ends of its interval, the sums of its operations'."""
    low = median = high = 0
    for signature in loaded.signatures(choice):
        row = loaded.profile.get(signature)
        if row is None or row.timing is None:
            return None
        low, median, high = low + row.timing.ci_low_ns, median + row.timing.median_ns, high + row.timing.ci_high_ns
    return low, median, high


def worthwhile(loaded: Loaded) -> tuple[Choice, ...]:
    """The choices that are faster than keeping their layers as they are, and ``keep`` of every layer.

    Others can be in no plan that keeping would not beat, as long as a change does not make the network better.

    Raises:
        TableError: The profile has no latency of a layer that is kept.
    """
    kept: dict[tuple[int, int], int] = {}
    for choice in loaded.choices:
        if choice.kind is Kind.KEEP:
            latency = latency_ns(loaded, choice)
            if latency is None:
                raise TableError(
                    f"profile {loaded.profile.path} has no latency for layer {choice.block}",
                    hint="run trt-layermerge profile with the same settings first",
                )
            kept[choice.block.chain, choice.block.end] = latency

    def pays(choice: Choice) -> bool:
        block, latency = choice.block, latency_ns(loaded, choice)
        keeping = sum(kept[block.chain, index] for index in range(block.start + 1, block.end + 1))
        return choice.kind is Kind.KEEP or (latency is not None and latency < keeping)

    return tuple(choice for choice in loaded.choices if pays(choice))


def frontier_of(loaded: Loaded, baseline: Timing, table: ImportanceTable | None) -> Frontier:
    """The frontier of a job, from its tables.

    Args:
        loaded: The job.
        baseline: Latency of the original.
        table: Losses; without them every choice counts as harmless, and only the frontier's fastest plan is right.

    Raises:
        TableError: A table lacks a row that the method needs.
    """
    choices = worthwhile(loaded)
    candidates = [_candidate(loaded, choice, table) for choice in choices]
    original, kept = baseline.median_ns, _kept_ns(candidates)
    if kept > original:
        # The blocks take longer one by one than the network as a whole: what calling a runtime costs is in each of
        # them. Shares of the network are then the best that is known.
        candidates = [_scaled(item, original, kept) for item in candidates]
        kept = _kept_ns(candidates)
    lengths = [len(chain) for chain in loaded.network.chains]
    return solve(formulate(loaded.job.method, lengths, candidates, original - kept, original))


def _scaled(item: Candidate, share: int, whole: int) -> Candidate:
    """A candidate with its latency and the ends of its interval, if it has one, multiplied by share / whole."""
    low, high = item.low_ns, item.high_ns
    return replace(
        item,
        latency_ns=item.latency_ns * share // whole,
        low_ns=None if low is None else low * share // whole,
        high_ns=None if high is None else -(-high * share // whole),
    )


def _kept_ns(candidates: Iterable[Candidate]) -> int:
    return sum(item.latency_ns for item in candidates if item.kind == Kind.KEEP)


def solve_stage(loaded: Loaded, baseline: Timing, table: ImportanceTable) -> PlanFile:
    """Plan, and write the plan file."""
    frontier, job = frontier_of(loaded, baseline, table), loaded.job
    budget_ns = job.budget.nanoseconds(baseline.median_ns)
    if job.confidence is None:
        return decide(loaded, frontier.best(budget_ns), table)
    return decide(loaded, plan_for(frontier, budget_ns, job.confidence).plan, table)


def decide(loaded: Loaded, plan: Plan, table: ImportanceTable, refined: Sequence[Refined] = ()) -> PlanFile:
    """Write the plan file of the plan that was decided for, with its certificate."""
    tables = {"profile": loaded.profile.sha256, "importance": table.sha256, "settings": loaded.fingerprint}
    file = PlanFile.of(plan, loaded.job.budget, tables, refined)
    write_plan(loaded.job.plan_file, file)
    return file


def plan_stage(loaded: Loaded, reporter: Reporter) -> PlanFile:
    """All stages up to the plan; a plan that was made for the very same settings is kept.

    So a job that was killed while fine-tuning goes on with the plan that it had, whatever the machine measures now.
    """
    if (file := kept_plan(loaded)) is not None:
        return file
    baseline, table = tables_stage(loaded, reporter)
    reporter.stage("solve")
    return solve_stage(loaded, baseline, table)


def kept_plan(loaded: Loaded) -> PlanFile | None:
    """The plan on disk, if it was made for the very same settings."""
    if not loaded.job.plan_file.exists():
        return None
    file = read_plan(loaded.job.plan_file)
    return file if file.certificate.tables.get("settings") == loaded.fingerprint else None


def tables_stage(loaded: Loaded, reporter: Reporter) -> tuple[Timing, ImportanceTable]:
    """All that a plan rests on: the profile, the original's latency, and importances."""
    loaded.require_task()
    profile_stage(loaded, reporter)
    baseline = baseline_stage(loaded, reporter)
    # The fastest plan needs latencies only: what nobody can meet is said before hours of importance.
    frontier_of(loaded, baseline, None).best(loaded.job.budget.nanoseconds(baseline.median_ns))
    return baseline, importance_stage(loaded, reporter, worthwhile(loaded))


def chosen(loaded: Loaded, plan: Plan) -> tuple[Choice, ...]:
    """The choices of a plan; of a block that runs in several parts, those of the parts.

    Raises:
        TableError: The plan names a choice that this network does not have.
    """
    by_key = {choice.key: choice for choice in choices_of(loaded.network, loaded.job.limits)}
    for key in plan.keys:
        if key not in by_key:
            raise TableError(
                f"the plan {loaded.job.plan_file} has a choice that {loaded.network.name} does not have: {key}",
                hint="it was made for another network or other limits; run solve again",
            )
    return tuple(by_key[key] for key in plan.keys)


def _candidate(loaded: Loaded, choice: Choice, table: ImportanceTable | None) -> Candidate:
    block, row = choice.block, None if table is None else table.get(choice.key)
    if row is None and table is not None and choice.kind is not Kind.KEEP:
        raise TableError(
            f"importance table {table.path} has no row for {choice.key!r}",
            hint="run trt-layermerge importance with the same settings first",
        )
    interval = _interval_ns(loaded, choice)
    assert interval is not None  # worthwhile() left only those
    before, after = (0.0, 0.0) if row is None else (row.loss_before, row.loss_after)
    geometry = choice.geometry
    return Candidate(
        block.chain,
        block.start,
        block.end,
        choice.key,
        str(choice.kind),
        choice.reducible,
        interval[1],
        before,
        after,
        low_ns=interval[0],
        high_ns=interval[2],
        kernel=0 if geometry is None else max(geometry.kernel),
        depthwise=geometry is not None and geometry.groups == geometry.in_channels > 1,
        dropped=len(block) - len(choice.kept) if choice.kind is Kind.MERGE else None,
    )


def _isolated(job: Job) -> BuildOptions:
    """Candidate blocks are timed as they would run amid the network."""
    return BuildOptions(job.options.threads, job.options.precision, isolated=True)


def _read_baseline(path: Path, key: dict[str, Any]) -> Timing | None:
    """The baseline of these very weights, device and batch; that of others is measured anew."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("format") != BASELINE:
            raise ValueError("is no baseline")
        timing = read_timing(record)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{path} is damaged: it {error}", hint="remove it to have the original timed again") from error
    return timing if all(record.get(name) == value for name, value in key.items()) else None
