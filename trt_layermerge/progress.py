"""How long computations tell what they are doing: to the log, and to whoever called them.

Computations know a ``Progress`` only. A ``Reporter`` makes one step after the other of that, for one callback.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from trt_layermerge.log import record

_LOG = logging.getLogger(__name__)


@runtime_checkable  # jaxtyping looks while tests run
class Progress(Protocol):
    """What a computation calls."""

    def __call__(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        """So much is done.

        Args:
            done: Steps that are done.
            total: Steps there are.
            label: What is in hand or was done last, in a few words.
            share: Share of the work of this call that is done, where steps are known to take unequally long. Without
                it, the first call tells what another run had done.
        """


def silent(done: int, total: int, label: str, *, share: float | None = None) -> None:
    """A progress that nobody follows."""


@dataclass(frozen=True)
class Step:
    """Where a job is.

    Attributes:
        stage: The stage's name, such as ``importance``.
        done: How many of its steps are done.
        total: How many there are; ``None`` while that is not known, and of stages without steps.
        label: What is in hand or was done last, in a few words.
        seconds: What the stage has taken.
        seconds_left: What it should still take; ``None`` while nothing tells.
        finished: Whether the stage has ended.
    """

    stage: str
    done: int = 0
    total: int | None = None
    label: str = ""
    seconds: float = 0.0
    seconds_left: float | None = None
    finished: bool = False


Callback = Callable[[Step], None]
"""Follows a job: is called when a stage begins, with each of its steps, and when it ends; ``print`` will do."""


class Reporter:
    """Tells a callback and the log where a job is.

    Args:
        callback: Is told of every step; ``None`` for the log alone.
        clock: Seconds; only tests have another.
    """

    def __init__(self, callback: Callback | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._callback, self._clock = callback, clock
        self._step: Step | None = None
        self._began = self._last = 0.0
        self._base: tuple[float, float] | None = None

    def stage(self, name: str) -> None:
        """A stage begins; the one before it has ended."""
        self.finish()
        self._began = self._last = self._clock()
        self._base = None
        record(_LOG.info, "stage", "%s begins", name, stage=name)
        self._tell(Step(name))

    def progress(self, done: int, total: int, label: str, *, share: float | None = None) -> None:
        """So much of the stage is done."""
        if self._step is None:
            return
        now = self._clock()
        if self._base is None or self._step.total != total:
            self._base = (self._last, 0.0) if share is not None else (now, done / max(1, total))
        left, self._last = self._left(now, done / max(1, total) if share is None else share), now
        step = Step(self._step.stage, done, total, label, now - self._began, left)
        about = {"stage": step.stage, "done": done, "total": total, "label": label, "seconds_left": left}
        record(_LOG.debug, "step", "%s: %d of %d, %s", step.stage, done, total, label, **about)
        self._tell(step)

    def finish(self) -> None:
        """The stage has ended, if there is one."""
        if self._step is None:
            return
        last, seconds = self._step, self._clock() - self._began
        about = {"stage": last.stage, "done": last.done, "seconds": round(seconds, 3)}
        record(_LOG.info, "stage-end", "%s took %.1f s", last.stage, seconds, **about)
        self._tell(Step(last.stage, last.total or last.done, last.total, "", seconds, 0.0, finished=True))
        self._step = None

    def stopped(self, error: BaseException) -> None:
        """The stage has ended before its time, if there is one."""
        if self._step is None:
            return
        step, why = self._step, type(error).__name__
        about = {"stage": step.stage, "done": step.done, "total": step.total, "label": step.label, "error": why}
        record(_LOG.info, "stage-stopped", "%s stopped: %s", step.stage, why, **about)

    def _tell(self, step: Step) -> None:
        self._step = step
        if self._callback is not None:
            self._callback(step)

    def _left(self, now: float, share: float) -> float | None:
        """What is left at the pace until now, of the work of this call: what another run had done took no time now."""
        assert self._base is not None, "there was a step"
        since, before = self._base
        if share >= 1:
            return 0.0
        return (now - since) * (1 - share) / (share - before) if share > before and now > since else None


@contextmanager
def reporting(callback: Callback | None) -> Iterator[Reporter]:
    """A reporter for one call; where that fails or is interrupted, the log says in which stage."""
    reporter = Reporter(callback)
    try:
        yield reporter
    except BaseException as error:
        reporter.stopped(error)
        raise
    reporter.finish()


def minutes(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
