"""A stream of PyTorch's, with its events and graphs, as ``GpuTimer`` takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.nvidia.cuda import Event, Graph


class TorchStream:
    """A stream of its own: PyTorch captures no graph on the default one."""

    name = "torch"

    def __init__(self, device: torch.device) -> None:
        """Make the stream, behind all that was queued on the device before."""
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(device))

    def queue(self, run: Callable[[], object]) -> None:
        """Let a function queue on this stream."""
        with torch.cuda.stream(self._stream):
            run()

    def event(self) -> Event:
        return Event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]

    def record(self, event: Event) -> None:
        event.owner.record(self._stream)

    def elapsed_ms(self, start: Event, stop: Event) -> float:
        return float(start.owner.elapsed_time(stop.owner))

    def synchronize(self) -> None:
        self._stream.synchronize()

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """See ``Stream.capture``; what was warmed up before has its algorithms chosen, which no capture may do."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                enqueue()
        except RuntimeError as error:
            raise ModelError(f"PyTorch cannot capture the network in a CUDA graph: {error}") from error
        return _TorchGraph(graph, self)


@dataclass(frozen=True)
class _TorchGraph:
    """A captured graph with the stream that it is launched on."""

    graph: torch.cuda.CUDAGraph
    stream: TorchStream

    def launch(self) -> None:
        self.stream.queue(self.graph.replay)
