"""The doubles in the place of NVIDIA's libraries, in this process and in those that it starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.runtimes import cuda

SITE = Path(__file__).parent / "site"
DRIVER = cuda.Driver("580.00", "13.0", "Simulated GeForce RTX 2080 Ti", "7.5", "0000:01:00.0")

_REPLACED = ("tensorrt", "cuda", "pynvml", "pycuda", "double_settings", "trt_layermerge.runtimes.tensorrt")

Tell = Callable[..., None]


def _of_doubles(name: str) -> bool:
    return any(name == replaced or name.startswith(f"{replaced}.") for replaced in _REPLACED)


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Tell]:
    """Call it with settings of ``double_settings.DEFAULTS`` to make the doubles do something else."""
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _of_doubles(name)}
    told: dict[str, Any] = {}

    def tell(**settings: Any) -> None:
        told.update(settings)
        monkeypatch.setenv("DOUBLE", json.dumps(told))

    tell()
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda, "driver", lambda: DRIVER)
    yield tell
    for name in [name for name in sys.modules if _of_doubles(name)]:
        del sys.modules[name]
    sys.modules.update(aside)
