"""Stubs of the genuine bindings, made once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract import genuine


@pytest.fixture(scope="session", params=genuine.TENSORRT_RTX)
def rtx_wheel(request: pytest.FixtureRequest) -> str:
    """A wheel of TensorRT-RTX."""
    return str(request.param)


@pytest.fixture(scope="session")
def rtx_stubs(rtx_wheel: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stub of ``tensorrt_rtx`` of that wheel."""
    target = tmp_path_factory.mktemp(rtx_wheel)
    genuine.write_rtx_stubs(rtx_wheel, target)
    return target


@pytest.fixture(scope="session", params=genuine.TENSORRT)
def release(request: pytest.FixtureRequest) -> str:
    """A release of TensorRT."""
    return str(request.param)


@pytest.fixture(scope="session")
def stubs(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stub of ``tensorrt`` of that release."""
    target = tmp_path_factory.mktemp(release)
    genuine.write_stubs(release, target)
    return target


@pytest.fixture(scope="session")
def runtime() -> ModuleType:
    """The installed cuda-bindings."""
    return pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")


@pytest.fixture(scope="session")
def nvml() -> ModuleType:
    """The genuine nvidia-ml-py, under another name."""
    path = genuine.folder("nvidia-ml-py-13.615.71") / "pynvml.py"
    spec = importlib.util.spec_from_file_location("genuine_pynvml", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # it looks itself up
    spec.loader.exec_module(module)
    return module
