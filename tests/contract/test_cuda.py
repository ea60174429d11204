"""Whatever our source touches of cuda-bindings, pycuda and nvidia-ml-py exists, and takes the arguments it is given."""

from __future__ import annotations

import re
import sys
import tarfile
from functools import reduce
from types import ModuleType

import pytest

from tests.contract import genuine
from tests.contract.calls import faults, uses
from tests.contract.checker import ROOT

RUNTIMES = ROOT / "trt_layermerge" / "runtimes" / "nvidia"


def dotted(module: object, name: str) -> object:
    return reduce(getattr, name.split("."), module)


@pytest.fixture(scope="module")
def source() -> dict[str, str]:
    (archive,) = genuine.folder("pycuda-2026.1").glob("*.tar.gz")
    with tarfile.open(archive) as files:
        members = {member.name.split("/", 1)[-1]: member for member in files.getmembers() if member.isfile()}
        wanted = ("src/wrapper/wrap_cudadrv.cpp", "pycuda/driver.py")
        return {name: files.extractfile(members[name]).read().decode() for name in wanted}


class TestCudaBindings:
    def test_all_that_we_touch_exists(self, runtime: ModuleType, record_property) -> None:
        found = list(uses(RUNTIMES / "cuda.py", ["self._runtime", "runtime"]))
        version = sys.modules["cuda.bindings"].__version__
        names = {use.name for use in found}
        record_property("contract", f"cuda-bindings {version}: {len(names)} names touched, 0 missing")
        assert faults(found, lambda name: dotted(runtime, name)) == []
        assert {"cudaMalloc", "cudaStreamCreateWithFlags", "cudaGraphLaunch", "cudaError_t.cudaSuccess"} < names

    @pytest.mark.parametrize("line", ["cudaMallocs(1)", "cudaMalloc()", "cudaMalloc(1, 2)", "cudaError_t.cudaSucces"])
    def test_what_was_planted_is_seen(self, runtime: ModuleType, line: str, tmp_path) -> None:
        (tmp_path / "planted.py").write_text(f"runtime.cudaMalloc(1)\nruntime.{line}\n")
        wrong = faults(uses(tmp_path / "planted.py", ["runtime"]), lambda name: dotted(runtime, name))
        assert len(wrong) == 1 and wrong[0].startswith("planted.py:2")

    def test_without_a_driver_an_error_is_returned_and_nothing_else_happens(self, runtime: ModuleType) -> None:
        error, count = runtime.cudaGetDeviceCount()
        if error == runtime.cudaError_t.cudaSuccess:
            pytest.skip("there is a driver here")
        assert error.name in ("cudaErrorInsufficientDriver", "cudaErrorNoDevice") and count is None


class TestNvml:
    def test_all_that_we_touch_exists(self, nvml: ModuleType, record_property) -> None:
        source = RUNTIMES / "nvml.py"
        found = list(uses(source, ["nvml", "pynvml", "self._library"]))
        reasons = set(re.findall(r'"(nvml\w+)"', source.read_text()))
        names = {use.name for use in found} | reasons
        record_property("contract", f"nvidia-ml-py 13.615.71: {len(names)} names touched, 0 missing")
        assert faults(found, lambda name: dotted(nvml, name)) == []
        assert [name for name in reasons if not hasattr(nvml, name)] == []
        assert "nvmlDeviceGetHandleByPciBusId" in names and len(reasons) >= 4


class TestPyCuda:
    """pycuda cannot be installed without CUDA; its names are read off the C++ that makes them."""

    def test_all_that_we_touch_exists(self, source: dict[str, str], record_property) -> None:
        offered = names_of_boost_python(source["src/wrapper/wrap_cudadrv.cpp"])
        found = list(uses(RUNTIMES / "cuda.py", ["self._driver", "pycuda.driver"]))
        names = {use.name for use in found}
        methods = {
            "Stream.handle",
            "Stream.synchronize",
            "Event.record",
            "Event.time_till",
            "Context.push",
            "Context.pop",
        }
        text = (RUNTIMES / "cuda.py").read_text()
        record_property("contract", f"pycuda 2026.1: {len(names | methods)} names touched, 0 missing")
        assert names - offered == set() and methods - offered == set()
        assert all(re.search(rf"\.{method.split('.')[1]}\b", text) for method in methods), "our source uses these"
        assert {"mem_alloc", "memcpy_htod_async", "memcpy_dtoh_async", "Stream", "Event"} <= names
        assert "Device.retain_primary_context" in names
        assert "from pycuda._driver import *" in source["pycuda/driver.py"]

    def test_it_has_no_graphs_which_is_why_we_capture_with_cuda_bindings(self, source: dict[str, str]) -> None:
        assert "StreamBeginCapture" not in source["src/wrapper/wrap_cudadrv.cpp"]

    def test_what_was_planted_is_seen(self, source: dict[str, str]) -> None:
        offered = names_of_boost_python(source["src/wrapper/wrap_cudadrv.cpp"])
        assert {"memcpy_htod_async", "Stream.synchronize", "MemoryError"} <= offered
        assert not {"memcpy_htod_asynch", "Stream.begin_capture", "Event.handle"} & offered


def names_of_boost_python(source: str) -> set[str]:
    """Names that a Boost.Python module defines: functions, exceptions, classes, and ``Class.method``."""
    names: set[str] = set()
    owner: str | None = None
    token = re.compile(
        r"py::class_<[^;]*?>\s*(?:wrp)?\s*\(\s*\"(?P<owner>\w+)\"|DECLARE_EXC\((?P<exception>\w+),"
        r"|DEF_SIMPLE_FUNCTION(?:_WITH_ARGS)?\((?P<simple>\w+)|py::def\(\"(?P<function>\w+)\""
        r"|(?:DEF_SIMPLE_METHOD(?:_WITH_ARGS)?\(|\.def\(\"|\.add_property\(\")(?P<method>\w+)"
    )
    for match in token.finditer(source):
        found = {kind: name for kind, name in match.groupdict().items() if name}
        if "method" in found:
            names.add(f"{owner}.{found['method']}")
            continue
        names.update(found.values())
        owner = found.get("owner", owner)
    return names
