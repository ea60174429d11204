"""NVIDIA's genuine bindings, as ``make bindings`` puts them beside the environment: to be looked at, not to be used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(sys.prefix) / "bindings"
TENSORRT = ("10.9.0.34", "10.16.1.11", "11.4.0.106")
"""The oldest release that is supported, and the newest of each major version."""

TENSORRT_RTX = ("tensorrt-rtx-cu12-1.7.1.116", "tensorrt-rtx-cu13-1.7.1.116")

_HERE = Path(__file__).parent


def folder(name: str) -> Path:
    """Where a package lies; the test is skipped where it does not."""
    if not (FOLDER / name).is_dir():
        pytest.skip(f"{name} is not in {FOLDER}: make bindings")
    return FOLDER / name


def write_stubs(version: str, target: Path) -> None:
    """Write the stub of ``tensorrt`` of one release into a folder; the test is skipped without gcc."""
    major = version.split(".")[0]
    libraries = [f"lib{library}.so.{major}" for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser")]
    _write("tensorrt", folder(f"tensorrt-{version}"), libraries, target)


def write_rtx_stubs(wheel: str, target: Path) -> None:
    """Write the stub of ``tensorrt_rtx`` of one wheel into a folder; the test is skipped without gcc."""
    _write("tensorrt_rtx", folder(wheel), ["libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"], target)


def _write(module: str, bindings: Path, libraries: list[str], target: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not here; the bindings are linked against a few lines of C: apt-get install gcc")
    target.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        subprocess.run([compiler, "-shared", "-fPIC", "-o", target / library, _HERE / "link_stub.c"], check=True)
    _generate(module, target, PYTHONPATH=str(bindings), LD_LIBRARY_PATH=str(target))


def _generate(module: str, target: Path, **environment: str) -> None:
    command = [sys.executable, "-P", _HERE / "stubs.py", module, target / module / "__init__.pyi"]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
