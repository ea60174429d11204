from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trt_layermerge.errors import ExitCode, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes import base, registry
from trt_layermerge.runtimes.onnxruntime import OnnxRuntimeKind
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.runtimes.survey import survey


def test_finds_onnxruntime() -> None:
    assert get_runtime("onnxruntime").name == "onnxruntime"


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is an NVIDIA driver here")
def test_all_that_tensorrt_lacks_is_said_at_once(monkeypatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda name: None)
    with pytest.raises(RuntimeNotAvailableError) as caught:
        registry.get_runtime("tensorrt")
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE
    assert "tensorrt is not installed" in caught.value.message and "no NVIDIA driver" in caught.value.message
    assert caught.value.hint is not None and "pip install" in caught.value.hint


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="there is an NVIDIA driver here")
@pytest.mark.parametrize("words", [["--runtime", "tensorrt"], ["--runtime=tensorrt"]])
def test_a_command_says_so_before_it_imports_anything_that_takes_long(words: list[str]) -> None:
    script = (
        "import sys; from trt_layermerge.cli.main import main\n"
        f"try: main(['profile', 'anything', *{words}])\n"
        "finally: print([name for name in ('torch', 'onnx', 'onnxruntime', 'tensorrt') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == ExitCode.NOT_AVAILABLE and done.stdout.strip() == "[]"
    assert done.stderr.startswith("error: runtime 'tensorrt' cannot run here") and "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "hint"), [("onnxruntine", "did you mean 'onnxruntime'"), ("zzz", "known runtimes")])
def test_helps_with_a_name_it_does_not_know(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        get_runtime(name)
    assert caught.value.hint is not None and hint in caught.value.hint


def test_a_package_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "trt_layermerge.runtimes.ort.ort_runtime", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeNotAvailableError, match="onnxruntime"):
        get_runtime("onnxruntime")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, trt_layermerge.runtimes.registry as r; assert 'onnxruntime' not in sys.modules;"
        "r.get_runtime('onnxruntime'); assert 'onnxruntime' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


class OtherPackage:
    """What another package's entry points would load."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **entries: str) -> None:
        points = [EntryPoint(name.replace("_", "-"), value, registry.GROUP) for name, value in entries.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: [one for one in points if one.group == group])
        registry._entries.cache_clear()


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OtherPackage]]:
    yield lambda **entries: OtherPackage(monkeypatch, **entries)
    registry._entries.cache_clear()


def test_another_package_adds_a_kind_by_an_entry_point(others) -> None:
    others(mine=f"{__name__}:MINE")
    assert registry.runtime_kind("mine") is MINE and registry.runtime_kinds()[-1] is MINE
    assert registry.runtime_names() == [*registry.KINDS, "mine"] and get_runtime("mine").name == "mine"
    with pytest.raises(UsageError, match="for the device that is here"):
        get_runtime("mine:sm75")
    assert survey()[-1].what == "mine" and survey()[-1].found


def test_no_package_takes_the_place_of_one_of_ours(others) -> None:
    others(onnxruntime=f"{__name__}:MINE")
    assert get_runtime("onnxruntime").kind.name == "onnxruntime" and MINE not in registry.runtime_kinds()


@pytest.mark.parametrize("value", ["no_such_module:KIND", f"{__name__}:no_such_name", f"{__name__}:MINE", "json:dumps"])
def test_a_package_that_is_broken_breaks_nothing_else(others, value: str) -> None:
    others(broken=value)
    assert [kind.name for kind in registry.runtime_kinds()] == list(registry.KINDS)
    with pytest.raises(RuntimeNotAvailableError, match="broken"):
        get_runtime("broken")
    (found,) = (finding for finding in survey() if finding.what == "broken")
    assert found.found is None and "broken" in str(found.fix)


class _Mine(OnnxRuntimeKind):
    name = "mine"


MINE = _Mine()


def test_the_usual_kind_is_the_first_that_can_run_here(monkeypatch) -> None:
    absent = [RuntimeNotAvailableError("it is missing")]
    for kind in registry.runtime_kinds():
        monkeypatch.setattr(type(kind), "missing", lambda self: absent)
    assert registry.usual_runtime_kind().name == "tensorrt", "which then says what is missing"
    monkeypatch.setattr(type(registry.runtime_kind("tensorrt-rtx")), "missing", lambda self: [])
    monkeypatch.setattr(OnnxRuntimeKind, "missing", lambda self: [])
    assert registry.usual_runtime_kind().name == "onnxruntime"
    monkeypatch.setattr(type(registry.runtime_kind("tensorrt")), "missing", lambda self: [])
    assert registry.usual_runtime_kind().name == "tensorrt"


def test_asking_about_kinds_loads_no_library() -> None:
    script = (
        "import sys; from trt_layermerge.runtimes import registry\n"
        "for kind in registry.runtime_kinds(): kind.missing(), kind.settings.options()\n"
        "slow = ('torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx', 'cuda.bindings.runtime')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
