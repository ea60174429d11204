"""The code of ``benchmarks/networks.py``, which makes and checks random plans."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def networks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("networks", ROOT / "benchmarks" / "networks.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
