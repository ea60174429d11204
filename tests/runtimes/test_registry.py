from __future__ import annotations

import subprocess
import sys

import pytest

from trt_layermerge.errors import ExitCode, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes.registry import get_runtime


def test_finds_onnxruntime() -> None:
    assert get_runtime("onnxruntime").name == "onnxruntime"


@pytest.mark.parametrize("name", ["tensorrt"])
def test_says_what_this_build_does_not_have(name: str) -> None:
    with pytest.raises(RuntimeNotAvailableError, match="no runtime") as caught:
        get_runtime(name)
    assert caught.value.exit_code is ExitCode.NOT_AVAILABLE


@pytest.mark.parametrize(("name", "hint"), [("onnxruntine", "did you mean 'onnxruntime'"), ("zzz", "known runtimes")])
def test_helps_with_a_name_it_does_not_know(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        get_runtime(name)
    assert caught.value.hint is not None and hint in caught.value.hint


def test_a_package_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "trt_layermerge.runtimes.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeNotAvailableError, match="onnxruntime"):
        get_runtime("onnxruntime")


def test_a_compiler_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(RuntimeNotAvailableError, match="TensorRT-RTX is not here") as caught:
        get_runtime("tensorrt-rtx:sm86")
    assert caught.value.hint == "pip install 'tensorrt-rtx-cu12>=1.7.1'"


def test_only_a_compiler_has_targets() -> None:
    with pytest.raises(UsageError, match="sm75"):
        get_runtime("onnxruntime:sm75")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, trt_layermerge.runtimes.registry as r; assert 'onnxruntime' not in sys.modules;"
        "r.get_runtime('onnxruntime'); assert 'onnxruntime' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
