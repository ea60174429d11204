"""The driver check, on a driver of a few lines of C; and memory, streams and graphs on the double of CUDA's runtime."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.doubles.fixtures import Tell
from trt_layermerge.errors import ExitCode, ModelError, RuntimeNotAvailableError
from trt_layermerge.runtimes.nvidia import cuda

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 7 : 5; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA GeForce RTX 2080 Ti", size); return 0; }
int cuDeviceGetPCIBusId(char *name, int size, int device) { strncpy(name, "0000:01:00.0", size); return 0; }
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a driver in place that returns an error, or sees so many GPUs."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not here: apt-get install gcc")

    def put(init: int = 0, count: int = 1) -> None:
        source, library = tmp_path / "driver.c", tmp_path / "libcuda.so.1"
        source.write_text(DRIVER)
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", "-o", library, source], check=True
        )
        monkeypatch.setattr(cuda, "_LIBRARY", str(library))

    cuda.driver.cache_clear()
    yield put
    cuda.driver.cache_clear()


def test_the_driver_tells_of_its_first_gpu(install: Install) -> None:
    install()
    found = cuda.driver()
    assert (found.cuda, found.device, found.compute_capability, found.pci_bus) == (
        "12.8", "NVIDIA GeForce RTX 2080 Ti", "7.5", "0000:01:00.0"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("what", "words"), [({"count": 0}, "sees no GPU"), ({"init": 999}, "cuInit returned error 999")]
)
def test_a_driver_that_does_not_work_is_told(install: Install, what: dict[str, int], words: str) -> None:
    install(**what)
    with pytest.raises(RuntimeNotAvailableError, match=words) as caught:
        cuda.driver()
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE and caught.value.hint


def test_no_driver_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cuda.driver.cache_clear()
    monkeypatch.setattr(cuda, "_LIBRARY", str(tmp_path / "libcuda.so.1"))
    with pytest.raises(RuntimeNotAvailableError, match="no NVIDIA driver"):
        cuda.driver()


def test_what_goes_up_comes_down(doubles: Tell) -> None:
    device, array = cuda.open_cuda(), np.arange(12, dtype=np.float32)
    buffer, back = device.allocate(array.nbytes), np.empty_like(array)
    device.upload(array, buffer)
    device.download(buffer, back)
    np.testing.assert_array_equal(back, array)


def test_memory_is_given_back(doubles: Tell) -> None:
    doubles(memory_bytes=1000)
    device = cuda.open_cuda()
    for _ in range(5):
        device.allocate(800)
    held = device.allocate(800)
    with pytest.raises(ModelError, match="cudaErrorMemoryAllocation"):
        device.allocate(800)
    assert held.size == 800


def test_more_than_a_buffer_holds_is_not_copied(doubles: Tell) -> None:
    device = cuda.open_cuda()
    with pytest.raises(ModelError, match="cudaErrorInvalidValue"):
        device.upload(np.zeros(5, np.float32), device.allocate(16))


def test_a_graph_is_run_when_it_is_launched(doubles: Tell) -> None:
    device, done = cuda.open_cuda(), []
    from cuda.bindings import runtime

    doubles(run_us=1000)
    graph = device.capture(lambda: [runtime._run_engine(device.stream, lambda: done.append(1)) for _ in range(3)])
    assert done == []
    start, stop = device.event(), device.event()
    device.record(start)
    graph.launch()
    device.record(stop)
    device.synchronize()
    assert len(done) == 3 and device.elapsed_ms(start, stop) == pytest.approx(3.0)


def test_what_cannot_be_captured_is_an_error_and_leaves_the_stream_usable(doubles: Tell) -> None:
    device = cuda.open_cuda()
    with pytest.raises(ModelError, match="cudaErrorStreamCaptureUnsupported"):
        device.capture(device.synchronize)
    device.synchronize()


def test_without_a_library_for_cuda_one_is_named(doubles: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "is_installed", lambda name: False)
    with pytest.raises(RuntimeNotAvailableError, match="neither pycuda nor cuda-bindings"):
        cuda.open_cuda()
