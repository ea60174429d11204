"""Measuring what choices do to a network: any estimator, all writing the same table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain

from trt_layermerge.blocks.choice import Choice
from trt_layermerge.blocks.limits import Limits
from trt_layermerge.blocks.sized_choices import NarrowedGroup
from trt_layermerge.importance.estimators.base import EstimationRequest, Estimator, Samples
from trt_layermerge.importance.estimators.registry import default_estimator
from trt_layermerge.importance.table import ImportanceRow, ImportanceTable, TableKey
from trt_layermerge.network.network import Network
from trt_layermerge.progress import Progress, silent
from trt_layermerge.resources.heap import heap_kept
from trt_layermerge.resources.memory import MemoryLimit
from trt_layermerge.training.checked_task import content_of
from trt_layermerge.training.task import Task


@dataclass(frozen=True)
class Estimation:
    """How importance is measured.

    Attributes:
        estimator: How, with its settings.
        samples: How much data it looks at.
        max_kernel: The largest kernel that is ever fitted; what a fit samples depends on it.
        memory: The most that the process may take; no row depends on it.
    """

    estimator: Estimator = field(default_factory=default_estimator)
    samples: Samples = field(default_factory=Samples)
    max_kernel: int = Limits.max_kernel
    memory: MemoryLimit = field(default_factory=MemoryLimit.usual, compare=False)


def table_key(network: Network, task: Task, how: Estimation) -> TableKey:
    """The key under which importances of a network on a task are kept."""
    samples = how.estimator.samples_used(how.samples)
    return TableKey(
        network.weights_hash,
        task.name,
        how.estimator.name,
        samples.calibration,
        samples.held_out,
        how.max_kernel,
        how.estimator.in_words,
        content_of(task),
    )


RowsOf = Callable[[EstimationRequest], Iterator[ImportanceRow]]
"""Who measures what is asked for, in any order."""


def rows_here(request: EstimationRequest, progress: Progress, estimator: Estimator) -> Iterator[ImportanceRow]:
    """Measure on this machine."""
    return chain(
        estimator.rows(request, progress) if request.choices else (),
        estimator.width_rows(request, progress) if request.narrowed else (),
    )


def missing_rows(
    network: Network,
    choices: Iterable[Choice],
    task: Task,
    table: ImportanceTable,
    how: Estimation,
    narrowed: Iterable[NarrowedGroup] = (),
) -> EstimationRequest:
    """What is still to be measured: the choices and widths that should have a row in the table, and have none."""
    missing = (one for one in choices if how.estimator.measures(one) and table.get(one.key) is None)
    todo = sorted(missing, key=lambda choice: choice.block)
    widths = tuple(one for one in narrowed if table.get(one.key) is None)
    return EstimationRequest(network, todo, task, how.samples, how.max_kernel, table.path, widths, how.memory)


@heap_kept()
def measure(
    network: Network,
    choices: Iterable[Choice],
    task: Task,
    table: ImportanceTable,
    how: Estimation,
    progress: Progress = silent,
    narrowed: Iterable[NarrowedGroup] = (),
    rows_of: RowsOf | None = None,
) -> None:
    """Measure every choice that the table has no row of; each row is on disk before the next choice begins.

    Args:
        network: The original.
        choices: What to measure.
        task: Data and loss; its test data is not read.
        table: Where rows go.
        how: The estimator and what it looks at.
        progress: Told of every choice.
        narrowed: The widths to measure as well.
        rows_of: Who measures; without it, this machine.

    Raises:
        ModelError: The network itself has a loss or activations that are not finite.
        TaskError: The task has no data to fit, to train or to evaluate on.
        UsageError: The estimator cannot measure one of the choices.
    """
    wanted, sizes = [choice for choice in choices if how.estimator.measures(choice)], tuple(narrowed)
    request, total = missing_rows(network, wanted, task, table, how, sizes), len(wanted) + len(sizes)
    how.estimator.forget([one for one in wanted if table.get(one.key) is not None], task, table.path)
    if not request.missing:
        return
    how.estimator.require_measurable(network, request.choices)
    network.module.eval()
    before = total - request.missing
    work = list(accumulate(how.estimator.work(request)))
    rows = rows_here(request, progress, how.estimator) if rows_of is None else rows_of(request)
    for number, row in enumerate(rows):
        table.add(row)
        progress(before + number + 1, total, row.choice, share=work[min(number, len(work) - 1)] / work[-1])
