"""The one-shot estimators: make one change, measure the held-out loss, nothing trained.

``fit`` choices are solved on calibration data between the original's own tensors; ``merge`` choices take the product
of the weights. Choices are independent of each other, so several are measured at once, each on one core: operations
that are shared by cores sum in another order, and wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from threading import Lock

import torch
from torch import nn

from trt_layermerge.blocks.choice import Choice, Kind, Place
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.evaluator import Evaluator, first
from trt_layermerge.importance.frames import Accumulated, accumulate, frames_of, in_memory
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.linear import normed
from trt_layermerge.merging.sequential import product, solved
from trt_layermerge.network.device import device_of
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.threads import single_threaded

NORM_IMAGES = 256
"""Most images that statistics of batch norms are estimated on: they are run once more for every choice."""


def one_shot_rows(request: EstimationRequest) -> Iterator[ImportanceRow]:
    """Make one change after the other and measure it, those together whose blocks start at one tensor."""
    task, samples = request.task, request.samples
    calibration = [inputs for inputs, _ in first(task.calibration_batches(), samples.calibration)]
    for_norms = first(task.calibration_batches(), min(samples.calibration, NORM_IMAGES))
    with single_threaded() as cores:
        at_once = cores if device_of(request.network.module).type == "cpu" else 1
        evaluator = Evaluator(request.network, task, first(task.held_out_batches(), samples.held_out), for_norms)
        for _, group in groupby(request.choices, key=lambda choice: lowered_in(request.network, choice).reads):
            yield from rows_from(evaluator, list(group), calibration, request.max_kernel, at_once)


def rows_from(
    evaluator: Evaluator, choices: Sequence[Choice], calibration: Sequence[Values], max_kernel: int, at_once: int = 1
) -> Iterator[ImportanceRow]:
    """Measure choices whose blocks start at one tensor.

    The normal equations are accumulated once for all kernels of a block and all blocks that share them, and in several
    passes over the data where all of them would take too much memory.

    Args:
        evaluator: Of the network.
        choices: What to measure.
        calibration: Inputs that fits are solved on.
        max_kernel: The largest kernel that blocks may be fitted with, wanted here or not.
        at_once: How many choices to measure at once, in threads; rows come in the order of the choices.
    """
    fits = [choice for choice in choices if choice.kind is Kind.FIT]
    yield from _rows(evaluator, [choice for choice in choices if choice.kind is not Kind.FIT], {}, at_once)
    if not fits:
        return
    places = dict.fromkeys(choice.place for choice in fits)
    for frames in in_memory(frames_of(evaluator.network, places, max_kernel)):
        began = time.monotonic()
        equations = accumulate(evaluator.network, frames, calibration)
        spent = time.monotonic() - began
        yield from _rows(evaluator, [choice for choice in fits if choice.place in equations], equations, at_once, spent)
        del equations  # before the next ones take their memory


def _rows(
    evaluator: Evaluator,
    choices: Sequence[Choice],
    equations: Mapping[Place, Accumulated],
    at_once: int,
    spent: float = 0.0,
) -> Iterator[ImportanceRow]:
    solving = Lock()  # factors are made once for all

    def measured(choice: Choice) -> ImportanceRow:
        began = time.monotonic()
        with solving:
            replacement, unexplained = _replacement(evaluator, choice, equations)
        after = evaluator.changed(choice, replacement)
        return evaluator.row(choice, after, unexplained, (time.monotonic() - began) / at_once)

    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) if at_once > 1 else None
    try:
        for number, row in enumerate(map(measured, choices) if pool is None else pool.map(measured, choices)):
            yield row if number else replace(row, seconds=round(row.seconds + spent, 3))
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _replacement(
    evaluator: Evaluator, choice: Choice, equations: Mapping[Place, Accumulated]
) -> tuple[nn.Module | None, float | None]:
    network = evaluator.network
    if choice.kind is Kind.IDENTITY:
        return None, None
    if choice.kind is Kind.MERGE:
        return normed(network.module, lowered_in(network, choice), to_module(product(network, choice))), None
    found = equations[choice.place]
    fitted = solved(found.equations, network, choice, found.index)
    return to_module(fitted.convolution), fitted.unexplained
