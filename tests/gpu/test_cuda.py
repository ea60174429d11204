"""CUDA by cuda-bindings, and NVML, on a real GPU: no torch, no TensorRT."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trt_layermerge.errors import ModelError
from trt_layermerge.runtimes.nvidia.compiler_settings import GpuSettings
from trt_layermerge.runtimes.nvidia.cuda import Buffer, Cuda, driver, open_cuda
from trt_layermerge.runtimes.nvidia.gpu_timer import GpuTimer
from trt_layermerge.runtimes.nvidia.nvml import Nvml, open_nvml

pytestmark = pytest.mark.gpu("cuda")

SIZE = 2**26
Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def cuda() -> Cuda:
    return open_cuda()


@pytest.fixture
def nvml() -> Nvml:
    pytest.importorskip("pynvml", reason="pip install nvidia-ml-py")
    found = open_nvml(driver().pci_bus)
    assert found is not None, "NVML knows the GPU by the driver's name of its bus"
    return found


def filling(cuda: Cuda, buffer: Buffer, value: int) -> Callable[[], None]:
    """Queues what sets every byte of a buffer."""
    from cuda.bindings import runtime

    def queue() -> None:
        (error,) = runtime.cudaMemsetAsync(buffer.address, value, buffer.size, cuda.stream)
        assert error == runtime.cudaError_t.cudaSuccess

    return queue


def bytes_of(cuda: Cuda, buffer: Buffer) -> Any:
    held = np.empty(buffer.size, np.uint8)
    cuda.download(buffer, held)
    return held


def test_what_is_uploaded_is_downloaded(cuda: Cuda) -> None:
    sent = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    buffer, received = cuda.allocate(sent.nbytes), np.empty_like(sent)
    cuda.upload(sent, buffer)
    cuda.download(buffer, received)
    np.testing.assert_array_equal(received, sent)


def test_more_memory_than_there_is_is_an_error_and_the_next_call_works(cuda: Cuda) -> None:
    with pytest.raises(ModelError):
        cuda.allocate(2**50)
    assert cuda.allocate(16).address


def test_memory_is_given_back(cuda: Cuda) -> None:
    """A thousand times 64 MiB is more than any GPU here has."""
    for _ in range(1000):
        assert cuda.allocate(SIZE).address


def test_events_tell_how_long_work_took(cuda: Cuda) -> None:
    buffer, (start, stop) = cuda.allocate(SIZE), (cuda.event(), cuda.event())
    elapsed = []
    for repeats in (10, 200):
        cuda.record(start)
        for _ in range(repeats):
            filling(cuda, buffer, 1)()
        cuda.record(stop)
        cuda.synchronize()
        elapsed.append(cuda.elapsed_ms(start, stop))
    assert 0 < 2 * elapsed[0] < elapsed[1]


def test_what_is_captured_runs_when_it_is_launched_and_not_before(cuda: Cuda) -> None:
    buffer = cuda.allocate(64)
    filling(cuda, buffer, 1)()
    graph = cuda.capture(filling(cuda, buffer, 2))
    cuda.synchronize()
    assert set(bytes_of(cuda, buffer)) == {1}
    graph.launch()
    cuda.synchronize()
    assert set(bytes_of(cuda, buffer)) == {2}


@pytest.mark.parametrize("graph", [True, False])
def test_runs_are_timed_by_the_gpus_clock(cuda: Cuda, graph: bool, record_property: Record) -> None:
    """Writing 64 MiB takes as long as the memory is fast: between 10 GB/s and 20 TB/s on whatever card."""
    buffer = cuda.allocate(SIZE)
    times = GpuTimer(cuda, filling(cuda, buffer, 3), GpuSettings(cuda_graph=graph)).time(200)
    assert times.shape == (200,) and times.dtype == np.int64
    rate = SIZE / float(np.median(times))
    how = "in a graph" if graph else "queued"
    record_property(f"memory written, {how}, GB/s", round(rate, 1))
    record_property(f"memory written, {how}, coefficient of variation", float(times.std() / times.mean()))
    assert 10 < rate < 20_000


def test_the_gpu_tells_its_condition(nvml: Nvml, record_property: Record) -> None:
    now = nvml.condition()
    record_property("NVML: clock, MHz", now.clock_mhz)
    record_property("NVML: temperature, C", now.temperature_c)
    record_property("NVML: power, W", now.power_w)
    record_property("NVML: held back by", list(now.held_back))
    assert now.clock_mhz is None or 100 <= now.clock_mhz <= 5000
    assert now.temperature_c is None or 10 <= now.temperature_c <= 110
    assert now.power_w is None or 0 < now.power_w < 2000
    assert now.clock_mhz is not None or now.temperature_c is not None, "a card tells one of them at least"


def test_nvml_and_the_driver_agree_on_its_version(nvml: Nvml) -> None:
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", nvml.driver)
    assert driver().version in (nvml.driver, f"of CUDA {driver().cuda}")
