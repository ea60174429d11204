"""PyTorch's streams, events and graphs on a double of ``torch.cuda``; ``tests/gpu`` has them on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.gpu_timer import GpuTimer
from trt_layermerge.runtimes.pytorch.torch_stream import TorchStream

RUN_MS = 0.05
"""Of what is queued, on the double's clock."""


class FakeCuda:
    """One GPU: what is queued on a stream takes time on its clock; what is captured does not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.current: Any = "default"
        self.capturing: list[Any] | None = None
        self.launches = 0
        cuda = self

        class Stream:
            def __init__(self, device: torch.device) -> None:
                self.device = device

            def wait_stream(self, other: Any) -> None:
                assert other == "default"

            def synchronize(self) -> None:
                assert cuda.capturing is None

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing
                self.at = float("nan")

            def record(self, stream: Stream) -> None:
                assert isinstance(stream, Stream) and cuda.capturing is None
                self.at = cuda.now

            def elapsed_time(self, other: Event) -> float:
                return other.at - self.at

        class CUDAGraph:
            runs = 0

            def replay(self) -> None:
                assert isinstance(cuda.current, Stream), "replayed on the stream it was captured on"
                cuda.launches += 1
                cuda.now += RUN_MS * self.runs

        @contextmanager
        def graph(graph: CUDAGraph, stream: Stream) -> Iterator[None]:
            before, cuda.current, cuda.capturing = cuda.current, stream, []
            try:
                yield
                graph.runs = len(cuda.capturing)
            finally:
                cuda.current, cuda.capturing = before, None

        @contextmanager
        def stream(stream: Stream) -> Iterator[None]:
            before, cuda.current = cuda.current, stream
            try:
                yield
            finally:
                cuda.current = before

        self.names = {"Stream": Stream, "Event": Event, "CUDAGraph": CUDAGraph, "graph": graph, "stream": stream}

    def run(self) -> None:
        """What an engine queues."""
        assert self.current != "default", "on the stream that is timed"
        if self.capturing is None:
            self.now += RUN_MS
        else:
            self.capturing.append(self)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    for name, value in fake.names.items():
        assert hasattr(torch.cuda, name)
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "default")
    return fake


@pytest.mark.parametrize("graph", [True, False])
def test_a_run_is_timed_on_its_stream_several_at_once(cuda: FakeCuda, graph: bool) -> None:
    stream = TorchStream(torch.device("cuda:0"))
    timer = GpuTimer(stream, lambda: stream.queue(cuda.run), GpuSettings(cuda_graph=graph))
    times = timer.time(50)
    assert len(times) == 50 and times == pytest.approx(1e6 * RUN_MS, rel=1e-3)
    assert cuda.launches == (4 if graph else 0), "one before, and three of twenty runs for fifty"
    timer.time(20)
    assert cuda.launches == (6 if graph else 0), "captured once"


def test_what_cannot_be_captured_is_a_model_error(cuda: FakeCuda) -> None:
    def fails() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(ModelError, match="not permitted when stream is capturing"):
        TorchStream(torch.device("cuda:0")).capture(fails)
