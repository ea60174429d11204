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
from typing import cast

from torch import nn

from trt_layermerge.blocks.choice import Choice, Kind, Place
from trt_layermerge.blocks.lowering import lowered_in
from trt_layermerge.importance.estimators.base import EstimationRequest
from trt_layermerge.importance.evaluator import Evaluator, first
from trt_layermerge.importance.expected_loss import ExpectedLoss, beside_outputs
from trt_layermerge.importance.frames import Accumulated, Frame, accumulate, frames_of, in_memory
from trt_layermerge.importance.table import ImportanceRow
from trt_layermerge.merging.algebra import to_module
from trt_layermerge.merging.linear import normed
from trt_layermerge.merging.sequential import product, solved
from trt_layermerge.network.count import pass_bytes
from trt_layermerge.network.device import device_of
from trt_layermerge.network.inputs import Values, samples_in
from trt_layermerge.network.network import Network
from trt_layermerge.resources.heap import give_back
from trt_layermerge.resources.memory import MOST_EQUATIONS, Need, Room
from trt_layermerge.resources.threads import single_threaded, workers
from trt_layermerge.training.task import Expecting, Scoring

NORM_IMAGES = 256
"""Most images that statistics of batch norms are corrected on: they are run once more for every choice."""


@dataclass(frozen=True)
class Prepared:
    """What rows are made from.

    Attributes:
        evaluator: Of the network.
        calibration: Inputs that fits are solved on.
        need: The memory without which nothing can be measured.
        room: What memory there is.
    """

    evaluator: Evaluator
    calibration: Sequence[Values]
    need: Need
    room: Room

    @classmethod
    def of(cls, request: EstimationRequest) -> Prepared:
        """The data of a request, and what the memory is divided into that it leaves."""
        task, samples = request.task, request.samples
        calibration = [inputs for inputs, _ in first(task.calibration_batches(), samples.calibration)]
        for_norms = list(first(task.calibration_batches(), min(samples.calibration, NORM_IMAGES)))
        held_out, scoring = list(first(task.held_out_batches(), samples.held_out)), cast(Scoring, task)
        if isinstance(task, Expecting) and len(request.network.outputs) == 1:  # else its own loss says what is wrong
            held_out, scoring = list(beside_outputs(request.network, held_out)), ExpectedLoss(task)
        batches = (*calibration, *(inputs for inputs, _ in held_out))
        need = need_of(request, max(map(samples_in, batches), default=1))
        room = request.memory.room(need)
        return cls(Evaluator(request.network, scoring, held_out, for_norms, room.activations), calibration, need, room)


def need_of(request: EstimationRequest, images: int) -> Need:
    """The memory that nothing can be measured without, with so many images in the largest batch."""
    todo = portions(request.network, request.choices, request.max_kernel)
    equations = max((frame.bytes for portion in todo for frame in portion.frames), default=0)
    return Need(equations, pass_bytes(request.network.module.graph, images))


def one_shot_rows(request: EstimationRequest) -> Iterator[ImportanceRow]:
    """Make one change after the other and measure it, those together whose blocks start at one tensor."""
    prepared = Prepared.of(request)
    with single_threaded() as cores:
        there_are = cores if device_of(request.network.module).type == "cpu" else 1
        # Half of the room is for the equations of what comes next.
        at_once = max(1, min(there_are, prepared.room.passes // 2 // max(1, prepared.need.passes)))
        yield from _in_portions(request, prepared, at_once)


def _in_portions(request: EstimationRequest, prepared: Prepared, at_once: int) -> Iterator[ImportanceRow]:
    """Measure choices; those whose blocks start at one tensor come one after the other.

    The normal equations are accumulated once for all kernels of a block and all blocks that share them, and in several
    passes over the data where all of them would take too much memory.

    Args:
        request: What to measure.
        prepared: What to measure it with.
        at_once: How many choices to measure at once, in threads; the equations of the next ones are accumulated
            meanwhile, where there is memory for both. Rows come in the order of the choices.
    """
    several, most = at_once > 1, prepared.room.equations
    passes = prepared.room.passes // (2 if several else 1)
    todo = portions(request.network, request.choices, request.max_kernel, most)
    with workers(1) if several else nullcontext() as beside, workers(at_once) if several else nullcontext() as pool:
        coming: Future[_Equations] | None = None
        for portion, following in pairwise((*todo, None)):
            assert portion is not None
            together = beside and following and portion.bytes + following.bytes <= most
            held = portion.bytes + (following.bytes if following and together else 0)
            prepared.evaluator.keep_within(prepared.room.beside(held))
            equations = portion.accumulated(prepared.calibration, passes) if coming is None else coming.result()
            coming = None
            if beside and following and together:
                coming = beside.submit(following.accumulated, prepared.calibration, passes)
            for row in _rows(prepared.evaluator, portion.choices, equations, at_once, pool):
                request.memory.keep()
                yield row
            del equations  # before the next ones take their memory
            give_back()  # which they rarely find in one piece


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

    def accumulated(self, calibration: Sequence[Values], memory: int) -> _Equations:
        """Their equations, from one pass over the data, whose activations have so many bytes."""
        began = time.monotonic()
        found = accumulate(self.network, self.frames, calibration, memory) if self.frames else {}
        return _Equations(found, time.monotonic() - began)


def portions(
    network: Network, choices: Iterable[Choice], max_kernel: int, most: int = MOST_EQUATIONS
) -> Iterator[Portion]:
    """The choices, first those of each start that need no equations; of others, as many as memory holds equations."""
    for _, group in groupby(choices, key=lambda choice: lowered_in(network, choice).reads):
        members = list(group)
        fits = [choice for choice in members if choice.kind is Kind.FIT]
        if len(fits) < len(members):
            yield Portion(network, [choice for choice in members if choice.kind is not Kind.FIT], ())
        places = dict.fromkeys(choice.place for choice in fits)
        for frames in in_memory(frames_of(network, places, max_kernel), most):
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
