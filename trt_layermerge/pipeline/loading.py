"""Loading what a job names, and failing before anything long begins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trt_layermerge.blocks.candidates import choices_of
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.blocks.cost import signatures
from trt_layermerge.blocks.signature import Signature
from trt_layermerge.delivery.typed import Typed, write_typed
from trt_layermerge.errors import UsageError
from trt_layermerge.files import require_writable
from trt_layermerge.importance.estimate import Estimator, require_measurable
from trt_layermerge.importance.judge import first
from trt_layermerge.latency.profile import Profile, ProfileKey
from trt_layermerge.network.device import device_named
from trt_layermerge.network.inputs import joined
from trt_layermerge.network.network import Network, load_network
from trt_layermerge.network.threads import use_threads
from trt_layermerge.pipeline.job import Job
from trt_layermerge.planning.methods import JOINT, method_named
from trt_layermerge.runtimes.protocol import BuildOptions, Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.training.check import check_task, require_steps, sample_shape
from trt_layermerge.training.datasets import Settings
from trt_layermerge.training.evaluate import evaluate
from trt_layermerge.training.load import is_named, load_task
from trt_layermerge.training.task import Regression, Task

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
        computes_on: Where torch measures importance, solves fits and trains.
    """

    job: Job
    network: Network
    choices: tuple[Choice, ...]
    runtime: Runtime
    profile: Profile
    task: Task | None
    computes_on: torch.device

    @property
    def device(self) -> dict[str, Any]:
        """What latencies depend on besides the network."""
        return asdict(self.profile.key)

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the plan."""
        inputs = [asdict(item) for item in self.network.inputs]
        return self.job.fingerprint(self.network.weights_hash, self.device, inputs)

    def signatures(self, choice: Choice) -> tuple[Signature, ...]:
        """What a choice executes."""
        return signatures(self.network.chains[choice.block.chain], choice, self.job.setting)

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
                hint="pass --task FILE.py, a file with a function task(); examples/fashion_mnist/task.py is one",
            )
        return self.task

    def training_task(self) -> Task:
        """The task as the recipe trains on it: a named one takes the batches and the loss that the recipe asks for.

        Everything else is judged by the task itself, or rows of one table would not be of one loss.

        Raises:
            UsageError: The job names none.
        """
        job, task = self.job, self.require_task()
        if job.task is None or job.recipe is None or not is_named(job.task):
            return task
        return load_task(job.task, Settings(_size(job), job.recipe.batch_size, job.recipe.label_smoothing))


def load(job: Job) -> Loaded:
    """Load everything that a job names, and fail before anything long begins.

    Raises:
        LayerMergeError: Something is missing, or does not fit together.
    """
    device = device_named(job.device)
    use_threads(job.cpu_threads)
    for folder in (job.output, job.profiles):
        require_writable(folder)
    method_named(job.method)
    if job.limits.bottleneck_activations and job.method in ("depth", "layer-only"):
        raise UsageError(
            f"method {job.method} adds no activations: it knows one way to merge a block, or none",
            hint="drop --bottleneck-activations, or plan with --method joint or layermerge",
        )
    if job.recipe is not None and job.recipe.decouple and job.method == JOINT.name:
        raise UsageError(
            "decoupling carries out merges alone, and method joint plans fits",
            hint="add --method depth, layermerge or layer-only; or --decouple 0",
        )
    runtime = get_runtime(job.runtime)
    task = None if job.task is None else load_task(job.task, Settings(_size(job)))
    # The data decides: a factory's own input shape is only a default.
    shape = job.input_shape or (None if task is None else sample_shape(task))
    network = load_network(job.model, job.weights, shape)
    if task is not None:
        _require_logits(job, task, network)
        check_task(task, network.inputs, ("calibration_batches", "held_out_batches"))
        evaluate(network.module, first(task.held_out_batches(), 2), task)
    choices = for_method(choices_of(network, job.limits), job.method)
    require_measurable(network, choices, job.estimation)
    key = ProfileKey.of(runtime.describe(isolated(job)))
    profile = Profile.open(Profile.path_for(job.profiles, key), key)
    loaded = Loaded(job, network, choices, runtime, profile, task, device)
    if task is not None and (job.recipe is not None or job.estimation.training):
        trained = loaded.training_task()
        require_steps(trained)
        check_task(trained, network.inputs, ("training_batches",))
    return loaded


def _size(job: Job) -> int | None:
    """Of the images of a task that a job names."""
    return None if job.input_shape is None else job.input_shape[-1]


def _require_logits(job: Job, task: Task, network: Network) -> None:
    """See that nothing but logits is distilled.

    Raises:
        UsageError: The recipe or the gates distil, and the outputs are something else.
    """
    gates = job.estimator is Estimator.GATES and job.gating.distillation > 0
    if not gates and (job.recipe is None or job.recipe.distillation == 0):
        return
    who, hint = "the recipe distils", "add --recipe ddpm-cifar10 or another that does not distil, or --distillation 0"
    if gates:
        who, hint = "the gates distil", "pass --gates-distillation 0"
    if isinstance(task, Regression):
        raise UsageError(f"{who}, and the outputs of task {task.name!r} are no logits", hint=hint)
    (output,) = (node for node in network.module.graph.nodes if node.op == "output")
    if (*output.all_input_nodes[0].meta["shape"], 1)[0] < 2:
        raise UsageError(f"{who}, and the network has one output a sample: no logits of several classes", hint=hint)


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
    fitted = {(choice.place, choice.geometry) for choice in choices if choice.kind is Kind.FIT}
    return tuple(
        choice for choice in choices if choice.kind is not Kind.MERGE or (choice.place, choice.geometry) not in fitted
    )


def _keeps_all(choice: Choice) -> bool:
    """Whether it merges several layers and drops none; of a single layer, ``keep`` is all there is to that."""
    return choice.kind is Kind.MERGE and len(choice.block) > 1 and len(choice.kept) == len(choice.block)


def _drops_one(choice: Choice) -> bool:
    """Whether it drops the convolution of one layer."""
    return choice.kind is Kind.IDENTITY and len(choice.block) == 1 and choice.reducible


def isolated(job: Job) -> BuildOptions:
    """Candidate blocks are timed as they would run amid the network."""
    return BuildOptions(job.options.threads, job.options.precision, isolated=True)
