"""Measuring what choices do to a network: the estimators behind one front door, all writing the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby

from trt_layermerge.blocks.candidates import Limits
from trt_layermerge.blocks.choice import Choice, Kind
from trt_layermerge.errors import UsageError
from trt_layermerge.importance.finetune import Tuning, tuned_rows
from trt_layermerge.importance.gates import Gating, gate_rows, require_gates
from trt_layermerge.importance.judge import Judge, first
from trt_layermerge.importance.oneshot import rows_from
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable, TableKey
from trt_layermerge.network.device import device_of
from trt_layermerge.network.network import Network
from trt_layermerge.network.threads import single_threaded
from trt_layermerge.training.task import Task

NORM_IMAGES = 256
"""Most images that statistics of batch norms are estimated on: they are run once more for every choice."""

Progress = Callable[[int, int, str], None]
"""Called with choices done, choices in all, and the one in hand; of ``gates`` first with steps of its training."""


class Estimator(StrEnum):
    """How the loss of a choice is found.

    ``fit`` and ``product`` train nothing: blocks to be fitted are solved in closed form, merged ones are the product of
    their weights. ``finetune`` is the papers' way: the network with that one block linearised is trained for a while.
    ``gates`` trains one network, in which every activation may become linear, and asks it for all choices.
    """

    FIT = "fit"
    PRODUCT = "product"
    FINETUNE = "finetune"
    GATES = "gates"


@dataclass(frozen=True)
class Samples:
    """How much data the one-shot estimators look at.

    Attributes:
        calibration: Images that fits are solved on, and statistics of batch norms estimated.
        held_out: Images that the loss is measured on.
    """

    calibration: int = 512
    held_out: int = 1024


@dataclass(frozen=True)
class Estimation:
    """How importance is measured.

    Attributes:
        estimator: How.
        samples: How much data the one-shot estimators look at.
        max_kernel: The largest kernel that is ever fitted; what a fit samples depends on it.
        tuning: How ``finetune`` trains.
        gating: How ``gates`` trains.
    """

    estimator: Estimator = Estimator.FIT
    samples: Samples = field(default_factory=Samples)
    max_kernel: int = Limits.max_kernel
    tuning: Tuning = field(default_factory=Tuning)
    gating: Gating = field(default_factory=Gating)

    @property
    def training(self) -> str:
        """How the estimator trains, in words; empty where it trains nothing."""
        trained = {Estimator.FINETUNE: self.tuning, Estimator.GATES: self.gating}
        return str(trained.get(self.estimator, ""))

    def measures(self, choice: Choice) -> bool:
        """Whether there is a row for a choice.

        A layer that is kept changes nothing, unless all else has been trained: the papers initialise it anew then, and
        train it like the rest.
        """
        return choice.kind is not Kind.KEEP or self.estimator is Estimator.FINETUNE


def table_key(network: Network, task: Task, how: Estimation) -> TableKey:
    """The key under which importances of a network on a task are kept."""
    samples = how.samples
    if how.estimator is Estimator.FINETUNE:
        samples = Samples(samples.calibration, 0)
    if how.estimator is Estimator.GATES:
        samples = Samples(0, samples.held_out)
    return TableKey(
        network.weights_hash,
        task.name,
        str(how.estimator),
        samples.calibration,
        samples.held_out,
        how.max_kernel,
        how.training,
    )


def measure(
    network: Network,
    choices: Iterable[Choice],
    task: Task,
    table: ImportanceTable,
    how: Estimation,
    progress: Progress = lambda done, total, label: None,
) -> None:
    """Measure every choice that the table has no row of; each row is on disk before the next choice begins.

    Args:
        network: The original.
        choices: What to measure.
        task: Data and loss; its test data is not read.
        table: Where rows go.
        how: The estimator and its settings.
        progress: Told of every choice.

    Raises:
        ModelError: The network itself has a loss or activations that are not finite.
        TaskError: The task has no data to fit, to train or to judge on.
        UsageError: The estimator cannot measure one of the choices.
    """
    wanted = sorted((choice for choice in choices if how.measures(choice)), key=lambda choice: choice.block)
    todo = [choice for choice in wanted if table.get(choice.key) is None]
    done = len(wanted) - len(todo)
    if not todo:
        return
    require_measurable(network, todo, how)
    network.module.eval()
    for row in _rows(network, todo, task, table, how, progress):
        table.add(row)
        done += 1
        progress(done, len(wanted), row.choice)


def require_measurable(network: Network, choices: Sequence[Choice], how: Estimation) -> None:
    """See that an estimator can measure choices.

    Raises:
        UsageError: It cannot measure one of them.
    """
    if how.estimator is Estimator.GATES:
        require_gates(network, choices)
    fits = [choice for choice in choices if choice.kind is Kind.FIT]
    if fits and how.estimator is Estimator.PRODUCT:
        raise UsageError(
            f"the estimator product cannot measure {fits[0].key!r}: a fit is no product of weights",
            hint="plan with --method layermerge, or measure with --estimator fit",
        )


def _rows(
    network: Network, todo: Sequence[Choice], task: Task, table: ImportanceTable, how: Estimation, progress: Progress
) -> Iterator[ImportanceRow]:
    match how.estimator:
        case Estimator.FINETUNE:
            return tuned_rows(network, todo, task, how.tuning, how.samples.calibration, table.path)
        case Estimator.GATES:
            held_out = how.samples.held_out
            return gate_rows(network, todo, task, how.gating, held_out, how.max_kernel, table.path, progress)
        case Estimator.FIT | Estimator.PRODUCT:
            return _one_shot(network, todo, task, how)


def _one_shot(network: Network, todo: Sequence[Choice], task: Task, how: Estimation) -> Iterator[ImportanceRow]:
    calibration = [inputs for inputs, _ in first(task.calibration_batches(), how.samples.calibration)]
    for_norms = first(task.calibration_batches(), min(how.samples.calibration, NORM_IMAGES))
    with single_threaded() as cores:
        at_once = cores if device_of(network.module).type == "cpu" else 1
        judge = Judge(network, task, first(task.held_out_batches(), how.samples.held_out), for_norms)
        for _, group in groupby(todo, key=lambda choice: (choice.block.chain, choice.block.start)):
            yield from rows_from(judge, list(group), calibration, how.max_kernel, at_once)
