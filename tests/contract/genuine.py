"""NVIDIA's genuine bindings, as ``make bindings`` puts them beside the environment: to be looked at, not to be used."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "bindings"
TENSORRT = ("10.9.0.34", "10.16.1.11", "11.4.0.106")
"""The oldest release that is supported, and the newest of each major version."""

_HERE = Path(__file__).parent


def folder(name: str) -> Path:
    """Where a package lies; the test is skipped where it does not."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"{name} is not in {FOLDER}: make bindings")
    return FOLDER / name


def write_stubs(version: str, target: Path) -> None:
    """Write the stub of ``tensorrt`` of one release into a folder; the test is skipped without gcc."""
    bindings, compiler = folder(f"tensorrt-{version}"), shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not here; the bindings are linked against a few lines of C: apt-get install gcc")
    major = version.split(".")[0]
    target.mkdir(parents=True, exist_ok=True)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        shared = target / f"lib{library}.so.{major}"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", shared, _HERE / "link_stub.c"], check=True)
    _generate("tensorrt", target, PYTHONPATH=str(bindings), LD_LIBRARY_PATH=str(target))


def write_rtx_stubs(target: Path) -> None:
    """Write the stub of the installed ``tensorrt_rtx`` into a folder; the test is skipped where it is not installed."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("tensorrt_rtx is not installed: pip install 'tensorrt-rtx-cu12>=1.7.1'")
    _generate("tensorrt_rtx", target)


def _generate(module: str, target: Path, **environment: str) -> None:
    command = [sys.executable, "-P", _HERE / "stubs.py", module, target / module / "__init__.pyi"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
