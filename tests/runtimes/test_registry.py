from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trt_layermerge.errors import ExitCode, RuntimeNotAvailableError, UsageError
from trt_layermerge.runtimes import base, registry
from trt_layermerge.runtimes.registry import get_runtime


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
    monkeypatch.delitem(sys.modules, "trt_layermerge.runtimes.ort.session", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeNotAvailableError, match="onnxruntime"):
        get_runtime("onnxruntime")


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, trt_layermerge.runtimes.registry as r; assert 'onnxruntime' not in sys.modules;"
        "r.get_runtime('onnxruntime'); assert 'onnxruntime' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
