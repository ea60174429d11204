"""The one-shot estimators: make one change, measure the held-out loss, nothing trained.

``fit`` choices are solved on calibration data between the original's own tensors; ``merge`` choices take the product
of the weights. Choices are independent of each other, so several are measured at once, each on one core: operations
that are shared by cores sum in another order, and wait for each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from threading import Lock

from torch import nn

from trt_layermerge.blocks.choice import Choice, Kind, Place
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.evaluator import Evaluator, first
from trt_layermerge.importance.frames import EQUATION_MEMORY, Accumulated, Frame, accumulate, frames_of, in_memory
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.linear import normed
from trt_layermerge.merging.sequential import product, solved
from trt_layermerge.network.device import device_of
from trt_layermerge.network.inputs import Values
from trt_layermerge.network.network import Network
from trt_layermerge.network.threads import single_threaded, workers

NORM_IMAGES = 256
"""Most images that statistics of batch norms are corrected on: they are run once more for every choice."""


def one_shot_rows(request: EstimationRequest) -> Iterator[ImportanceRow]:
    """Make one change after the other and measure it, those together whose blocks start at one tensor."""
    task, samples = request.task, request.samples
    calibration = [inputs for inputs, _ in first(task.calibration_batches(), samples.calibration)]
    for_norms = first(task.calibration_batches(), min(samples.calibration, NORM_IMAGES))
    with single_threaded() as cores:
        at_once = cores if device_of(request.network.module).type == "cpu" else 1
        evaluator = Evaluator(request.network, task, first(task.held_out_batches(), samples.held_out), for_norms)
        yield from rows_from(evaluator, request.choices, calibration, request.max_kernel, at_once)


def rows_from(
    evaluator: Evaluator, choices: Sequence[Choice], calibration: Sequence[Values], max_kernel: int, at_once: int = 1
) -> Iterator[ImportanceRow]:
    """Measure choices; those whose blocks start at one tensor come one after the other.

    The normal equations are accumulated once for all kernels of a block and all blocks that share them, and in several
    passes over the data where all of them would take too much memory.

    Args:
        evaluator: Of the network.
        choices: What to measure.
        calibration: Inputs that fits are solved on.
        max_kernel: The largest kernel that blocks may be fitted with, wanted here or not.
        at_once: How many choices to measure at once, in threads; the equations of the next ones are accumulated
            meanwhile, where there is memory for both. Rows come in the order of the choices.
    """
    several = at_once > 1
    with workers(1) if several else nullcontext() as beside, workers(at_once) if several else nullcontext() as pool:
        coming: Future[_Equations] | None = None
        for portion, following in pairwise((*portions(evaluator.network, choices, max_kernel), None)):
            assert portion is not None
            equations = portion.accumulated(calibration) if coming is None else coming.result()
            coming = None
            if beside and following and portion.bytes + following.bytes <= EQUATION_MEMORY:
                coming = beside.submit(following.accumulated, calibration)
            yield from _rows(evaluator, portion.choices, equations, at_once, pool)
            del equations  # before the next ones take their memory


@dataclass(frozen=True)
class _Equations:
    """Those of some blocks, and the seconds that they took."""

    of: Mapping[Place, Accumulated]
    seconds: float


@dataclass(frozen=True)
class Portion:
    """Choices whose equations are held at once."""

    network: Network
    choices: Sequence[Choice]
    frames: Sequence[Frame]

    @property
    def bytes(self) -> int:
        """Memory of their equations."""
        return sum(frame.bytes for frame in self.frames)

    def accumulated(self, calibration: Sequence[Values]) -> _Equations:
        """Their equations, from one pass over the data."""
        began = time.monotonic()
        found = accumulate(self.network, self.frames, calibration) if self.frames else {}
        return _Equations(found, time.monotonic() - began)


def portions(network: Network, choices: Iterable[Choice], max_kernel: int) -> Iterator[Portion]:
    """The choices, first those of each start that need no equations."""
    for _, group in groupby(choices, key=lambda choice: lowered_in(network, choice).reads):
        members = list(group)
        fits = [choice for choice in members if choice.kind is Kind.FIT]
        if len(fits) < len(members):
            yield Portion(network, [choice for choice in members if choice.kind is not Kind.FIT], ())
        places = dict.fromkeys(choice.place for choice in fits)
        for frames in in_memory(frames_of(network, places, max_kernel)):
            held = {place for frame in frames for place in frame.places}
            yield Portion(network, [choice for choice in fits if choice.place in held], frames)


def _rows(
    evaluator: Evaluator,
    choices: Sequence[Choice],
    equations: _Equations,
    at_once: int,
    pool: ThreadPoolExecutor | None,
) -> Iterator[ImportanceRow]:
    solving = Lock()  # factors are made once for all

    def measured(choice: Choice) -> ImportanceRow:
        began = time.monotonic()
        with solving:
            replacement, unexplained = _replacement(evaluator, choice, equations.of)
        after = evaluator.changed(choice, replacement)
        return evaluator.row(choice, after, unexplained, (time.monotonic() - began) / at_once)

    for number, row in enumerate(map(measured, choices) if pool is None else pool.map(measured, choices)):
        yield row if number else replace(row, seconds=round(row.seconds + equations.seconds, 3))


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
