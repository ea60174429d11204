"""Loading what a job names, and failing before anything long begins."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.copies import without_copies
from trt_layermerge.blocks.gap_signature import GapSignature
from trt_layermerge.blocks.sized_choices import NarrowedGroup, OfferedWidths, SizedChoice, sized_choices, widths_of
from trt_layermerge.delivery.typed_onnx import Typed, write_typed
from trt_layermerge.errors import TaskError, UsageError, say
from trt_layermerge.files import require_writable
from trt_layermerge.fleet.fleet import Fleet
from trt_layermerge.importance.data_quality import data_cautions, label_cautions, norm_cautions
from trt_layermerge.importance.evaluator import first
from trt_layermerge.latency.profile import Profile, ProfileKey
from trt_layermerge.log import record
from trt_layermerge.network.device import device_named
from trt_layermerge.network.inputs import examples, joined
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.pipeline.job import Job
from trt_layermerge.pipeline.needed_memory import require_memory
from trt_layermerge.pipeline.original import write_original
from trt_layermerge.planning.budget import Budget
from trt_layermerge.planning.methods.base import Method
from trt_layermerge.planning.methods.registry import registered_methods
from trt_layermerge.resources.threads import use_threads
from trt_layermerge.runtimes.base import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import get_runtime, require_running
from trt_layermerge.training.checked_task import CheckedTask, content_of
from trt_layermerge.training.datasets import UNLABELLED, Settings
from trt_layermerge.training.distillation import require_logits
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.load_task import is_named, is_unlabelled, load_task, task_file
from trt_layermerge.training.task import Task, Unlabelled
from trt_layermerge.training.task_check import check_task, require_steps, sample_shape
from trt_layermerge.training.task_identity import source_digest
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.unlabelled_task import Agreement

_LOG = logging.getLogger(__name__)

CONVERSION_SAMPLES = 256
"""Real inputs that a conversion to FP16 is checked on, and one to INT8 calibrated."""

_CONVERSION_BATCH = 16

COMPARED_SAMPLES = 16
"""Real inputs that the original is compared with its source on; without a task, random ones."""


@dataclass(frozen=True, repr=False)
class Session:
    """A job with what it names loaded.

    Attributes:
        job: Its settings.
        network: The original.
        choices: All choices that its method may take.
        runtime: Where latencies are measured.
        profile: The device's lookup table.
        task: Data, loss and metric, where the job names a task.
        computes_on: Where torch measures importance, solves fits and trains.
    """

    job: Job
    network: Network
    choices: tuple[Choice, ...]
    runtime: Runtime
    profile: Profile
    task: Task | None
    computes_on: torch.device

    def __repr__(self) -> str:
        return f"<Session of {self.job.model}: {len(self.choices)} choices, timed in {self.job.runtime}>"

    @property
    def comparison(self) -> Agreement | None:
        """The task, if it has no labels."""
        given = self.task.given if isinstance(self.task, CheckedTask) else self.task
        return given if isinstance(given, Agreement) else None

    @property
    def device(self) -> dict[str, Any]:
        """What latencies depend on besides the network."""
        return self.profile.key.record

    @property
    def timed_key(self) -> dict[str, Any]:
        """What the latency of the whole network depends on, as files name it."""
        inputs = {item.name: list(item.shape) for item in self.network.inputs}
        return {
            "weights": self.network.weights_hash,
            "device": self.device,
            "batch": self.job.batch,
            "inputs": inputs,
        }

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the plan."""
        return self._fingerprint(self.job)

    @property
    def any_budget(self) -> str:
        """Hash of all that decides the plans for all budgets."""
        unbound = replace(self.job, budget=Budget.parse("1"), confidence=None, refine=0)
        return self._fingerprint(unbound)

    def _fingerprint(self, job: Job) -> str:
        inputs = [asdict(item) for item in self.network.inputs]
        content = "" if self.task is None else content_of(self.task)
        if self.comparison is not None:
            job = replace(job, task=None)  # which is named by where samples lie; what they are is the content
        return job.fingerprint(self.network.weights_hash, self.device, inputs, content)

    @cached_property
    def cautions(self) -> tuple[str, ...]:
        """What is to be known before anything is trusted that this job measures; said when first asked for.

        Raises:
            InputError: Nothing can be measured.
        """
        task = self.require_task()
        found = (*norm_cautions(self.network), *data_cautions(task, self.network.inputs))
        found += label_cautions(self.network, task)
        for caution in found:
            say(caution)
        return found

    @cached_property
    def original(self) -> Path:
        """The original as ONNX, compared with its source on real inputs when it is first asked for.

        Raises:
            ProofError: It computes something else.
        """
        if self.task is None:
            inputs = examples(self.network.inputs, COMPARED_SAMPLES)
        else:
            batches = first(self.task.held_out_batches(), COMPARED_SAMPLES)
            inputs = joined(batch for batch, _ in batches)
        write_original(self.network, inputs, self.job.original_onnx)
        return self.job.original_onnx

    @cached_property
    def offered(self) -> tuple[OfferedWidths, ...]:
        """The widths that channel groups may have; none where nothing is narrowed."""
        return widths_of(self.network, self.job.shares, self.runtime.kind.channel_multiple)

    @property
    def narrowed(self) -> tuple[NarrowedGroup, ...]:
        """The widths that importance is measured of."""
        return tuple(NarrowedGroup(one.group, channels) for one in self.offered for channels in one.channels[1:])

    @cached_property
    def sized(self) -> Mapping[Choice, tuple[SizedChoice, ...]]:
        """Each choice in all combinations of widths, first with all channels, and what it executes."""
        found: dict[Choice, list[SizedChoice]] = {choice: [] for choice in self.choices}
        for one in sized_choices(self.network, self.choices, self.offered, self.job.setting):
            found[one.choice].append(one)
        return {choice: tuple(sizes) for choice, sizes in found.items()}

    @cached_property
    def gap_signatures(self) -> dict[int, GapSignature]:
        """Of the gaps that a region of some choice has, by their numbers in the network; in FP32 alone.

        In other precisions a gap would have to be calibrated; what it saves then counts for nothing.
        """
        regions = {choice.block.region for choice in self.choices} - {None}
        used = {gap for number in regions if number is not None for gap in self.network.regions[number].gaps}
        setting = self.job.setting
        if setting.precision != "fp32":
            return {}
        return {n: GapSignature.of(self.network.gaps[n], setting.batch, setting.precision) for n in sorted(used)}

    def typed(self, source: Path) -> Typed:
        """An FP32 ONNX file of the job in the precision that its engines are built in, written beside it."""
        precision = self.job.options.precision
        return write_typed(source, precision, [] if precision == "fp32" else self._conversion_batches())

    def _conversion_batches(self) -> list[tuple[Tensor, ...]]:
        batches = first(self.require_task().calibration_batches(), CONVERSION_SAMPLES)
        parts = (torch.split(values, _CONVERSION_BATCH) for values in joined(inputs for inputs, _ in batches))
        return list(zip(*parts, strict=True))

    def require_task(self) -> Task:
        """The task.

        Raises:
            UsageError: The job names none.
        """
        if self.task is None:
            raise UsageError(
                "importance is measured on data, and no task is given",
                hint="pass --task imagefolder:FOLDER, images:FOLDER where there are no labels, or FILE.py with task()",
            )
        return self.task

    def training_task(self) -> Task:
        """The task as the recipe trains on it: a named one takes the batches and the loss that the recipe asks for.

        Everything else is evaluated by the task itself, or rows of one table would not be of one loss.

        Raises:
            UsageError: The job names none.
        """
        job, task = self.job, self.require_task()
        if isinstance(task, CheckedTask) and self.comparison is not None and job.recipe is not None:
            return task.as_trained(job.recipe.batch_size, job.recipe.temperature)
        if job.task is None or job.recipe is None or not is_named(job.task):
            return task
        settings = Settings(_size(job), job.recipe.batch_size, job.recipe.label_smoothing)
        return _checked(job.task, settings).for_network(self.network, self.computes_on)


def open_session(job: Job) -> Session:
    """Load everything that a job names, and fail before anything long begins.

    Raises:
        LayerMergeError: Something is missing, or does not fit together.
    """
    for folder in (job.output, job.profiles):
        require_writable(folder)
    _require_method(job)
    if job.fleet is not None:
        Fleet.parse(job.fleet)
    runtime = _timing_runtime(job)
    network, task, device = open_network(job)
    choices = without_copies(network, for_method(choices_of(network, job.limits), job.planner))
    job.estimator.require_measurable(network, choices)
    if task is not None:
        require_memory(job, network, choices, task)
    key = ProfileKey.of(runtime.describe(block_options(job, runtime)))
    profile = Profile.open(Profile.path_for(job.profiles, key), key)
    session = Session(job, network, choices, runtime, profile, task, device)
    if session.offered:
        job.estimator.require_widths()
    about: dict[str, Any] = {"model": job.model, "runtime": job.runtime, "profile": str(profile.path)}
    about |= {
        "output": str(job.output),
        "choices": len(choices),
        "device": key.device.name,
        "task": str(job.task),
        "computes_on": str(device),
    }
    record(_LOG.info, "job", "%s: %d choices, %s", job.model, len(choices), profile.path, **about)
    if task is not None and (job.recipe is not None or job.estimator.trains):
        trained = session.training_task()
        require_steps(trained)
        check_task(trained, network.inputs, ("training_batches",))
    return session


def open_network(job: Job) -> tuple[Network, Task | None, torch.device]:
    """The network and the task of a job, checked, and where torch computes here: what importance needs.

    Raises:
        LayerMergeError: Something is missing, or does not fit together.
    """
    device = device_named(job.device)
    use_threads(job.cpu_threads)
    task = None if job.task is None else _checked(job.task, Settings(_size(job), comparing=_comparing(job)))
    # The data decides: a factory's own input shape is only a default.
    shape = job.input_shape or (None if task is None else sample_shape(task))
    network = load_network(job.model, job.weights, shape)
    if task is not None:
        task = task.for_network(network, device)
        job.estimator.require_task(task, network)
        if job.recipe is not None and job.recipe.distillation > 0 and not isinstance(task, Unlabelled):
            hint = "add --recipe ddpm-cifar10 or another that does not distil, or --distillation 0"
            require_logits(network, task, "the recipe distils", hint)
        check_task(task, network.inputs, ("calibration_batches", "held_out_batches"))
        _require_evaluable(network, task)
    return network, task, device


def _checked(spec: Path, settings: Settings) -> CheckedTask:
    task = load_task(spec, settings)
    return CheckedTask(task, source="" if is_named(spec) else source_digest(task_file(spec)))


def _require_method(job: Job) -> None:
    """See that there is such a method, and that it can do what else the job asks for.

    Raises:
        UsageError: There is none, or it cannot.
    """
    method, others = job.planner, registered_methods()
    if job.limits.bottleneck_activations and not method.adds_activations:
        raise UsageError(
            f"method {method.name} adds no activations: it knows one way to merge a block, or none",
            hint="drop --bottleneck-activations, or plan with another --method: "
            + ", ".join(one.name for one in others if one.adds_activations),
        )
    if job.recipe is not None and job.recipe.decouple and method.fits:
        raise UsageError(
            f"decoupling executes merges alone, and method {method.name} plans fits",
            hint="pass --decouple 0, or plan with another --method: "
            + ", ".join(one.name for one in others if not one.fits),
        )


def _size(job: Job) -> int | None:
    """Of the images of a task that a job names."""
    return None if job.input_shape is None else job.input_shape[-1]


def _comparing(job: Job) -> Comparing:
    """How samples without labels are prepared, and outputs compared.

    Raises:
        UsageError: The job says so, and its task has labels.
    """
    if job.comparing != Comparing() and not (job.task is not None and is_unlabelled(job.task)):
        raise UsageError(
            "--resize, --mean and their like, --distances and --metric are for tasks without labels",
            hint=f"pass --task {UNLABELLED}:FOLDER; a task of your own prepares its images itself",
        )
    return job.comparing


def _require_evaluable(network: Network, task: Task) -> None:
    """See that a task's loss and metric take what the network returns.

    Raises:
        TaskError: They do not.
    """
    try:
        evaluate(network.module, first(task.held_out_batches(), 2), task)
    except TaskError as error:
        if len(network.outputs) == 1 or isinstance(task, Unlabelled):
            raise
        raise TaskError(
            f"{error.message}; {network.name} returns {len(network.outputs)} tensors ({', '.join(network.outputs)}), "
            "and loss and metric get a tuple of them",
            hint=f"take that tuple in a task of your own; or compare with the original: --task {UNLABELLED}:FOLDER",
        ) from error


def for_method(choices: Iterable[Choice], method: Method) -> tuple[Choice, ...]:
    """The choices that a method admits; methods without fits are the papers', which know no regions."""
    known = (choice for choice in choices if method.fits or choice.block.region is None)
    return tuple(choice for choice in known if method.admits(choice))


def block_options(job: Job, runtime: Runtime) -> BuildOptions:
    """Candidate blocks are timed as they would run amid the network, where the runtime can do that."""
    return replace(job.options, isolated=runtime.kind.times_amid_network, batches=None)


def _timing_runtime(job: Job) -> Runtime:
    """The runtime of a job, which has to run engines and to have the precision.

    Raises:
        UsageError: There is no such runtime.
        RuntimeNotAvailableError: It runs nothing here, or does not have the precision.
    """
    require_running(job.runtime)
    runtime = get_runtime(job.runtime)
    runtime.require_precision(job.options.precision)
    return runtime
