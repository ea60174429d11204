"""Timing what is queued on a GPU's stream, by the GPU's own clock.

Has timed PyTorch's runs, and memory being written by cuda-bindings, on an H200: docs/experiments/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from math import ceil

import numpy as np

from trt_layermerge.runtimes.base import Nanoseconds
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.cuda import Event, Graph, Stream
from trt_layermerge.runtimes.nvidia.trtexec import WARM_UP_MS

SAMPLE_US = 1000.0
"""Least length of what is between two events: between them a graph begins, which took 2.6 us on an H200."""

_WARM_UP_RUNS = 10
_MOST_IN_A_GRAPH = 512


def timing_in_words(settings: GpuSettings, library: str, place: str) -> str:
    """What is timed and how; a part of a profile's key, because figures of other modes are others.

    Args:
        settings: Decide on graphs.
        library: That queues, records events and captures.
        place: How inputs and outputs lie in memory, in words; empty where a user would find them so.
    """
    how = f"a CUDA graph of runs back to back, {SAMPLE_US:.0f} us or more" if settings.cuda_graph else "queued runs"
    return f"CUDA events around {how}, no transfers, {WARM_UP_MS:.0f} ms warm-up, {library}{place}"


class GpuTimer:
    """Times a function that queues one run of an engine on a stream.

    Runs of a small engine are timed several at once, back to back, and share their mean: see ``SAMPLE_US``.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None], settings: GpuSettings) -> None:
        """Nothing is queued yet: warming up and capturing are for the first call of ``time``."""
        self._stream, self._enqueue, self._settings = stream, enqueue, settings
        self._events: list[tuple[Event, Event]] = []

    def time(self, repeats: int) -> Nanoseconds:
        """Time single runs; see ``Engine.time``.

        The launch before the first timed one keeps the GPU busy while the others are queued, so that none waits for the
        CPU.
        """
        runs, stream = self._runs_at_once, self._stream
        launches = ceil(repeats / runs)
        while len(self._events) < launches:
            self._events.append((stream.event(), stream.event()))
        self._launch()
        for start, stop in self._events[:launches]:
            stream.record(start)
            self._launch()
            stream.record(stop)
        stream.synchronize()
        elapsed = [stream.elapsed_ms(start, stop) for start, stop in self._events[:launches]]
        each = np.maximum(np.rint(np.array(elapsed) * 1e6 / runs), 1).astype(np.int64)
        return np.repeat(each, runs)[:repeats]

    def _launch(self) -> None:
        """Queue as many runs as are timed at once."""
        if self._graph is None:
            self._enqueue_several(self._runs_at_once)
        else:
            self._graph.launch()

    def _enqueue_several(self, runs: int) -> None:
        for _ in range(runs):
            self._enqueue()

    @cached_property
    def _graph(self) -> Graph | None:
        if not self._settings.cuda_graph:
            return None
        return self._stream.capture(lambda: self._enqueue_several(self._runs_at_once))

    @cached_property
    def _runs_at_once(self) -> int:
        """Warm up, as trtexec does, and see how many runs make a sample long enough."""
        stream = self._stream
        start, stop = stream.event(), stream.event()
        spent = latest = 0.0
        while spent < WARM_UP_MS:
            stream.record(start)
            self._enqueue_several(_WARM_UP_RUNS)
            stream.record(stop)
            stream.synchronize()
            latest = max(stream.elapsed_ms(start, stop), 1e-3)
            spent += latest
        return min(max(ceil(SAMPLE_US * _WARM_UP_RUNS / (1e3 * latest)), 1), _MOST_IN_A_GRAPH)
