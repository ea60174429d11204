"""What workers of a real fleet do in tests; they import it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from trt_layermerge.errors import IncompatibleError, TaskError, say


def open_squares(setting: str) -> Callable[[Sequence[int]], list[tuple[int, int]]]:
    """Numbers with their squares; a negative one ends the process that it meets."""
    if setting == "another device":
        raise IncompatibleError("device: this one, here another")

    def measured(numbers: Sequence[int]) -> list[tuple[int, int]]:
        if min(numbers) < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if setting == "raises":
            raise TaskError("the task has no data", hint="give it some")
        if setting == "fault":
            raise ZeroDivisionError("of ours")
        if 1 in numbers:
            say("a worker says something")
        return [(number, number * number) for number in numbers]

    return measured
