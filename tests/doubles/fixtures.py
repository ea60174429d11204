"""The doubles in the place of NVIDIA's libraries, in this process and in those that it starts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.runtimes.nvidia import cuda

SITE = Path(__file__).parent / "site"
DRIVER = cuda.CudaDriver("580.00", "13.0", "Simulated GeForce RTX 2080 Ti", "7.5", "0000:01:00.0")

_OURS = tuple(f"trt_layermerge.runtimes.nvidia.{name}" for name in ("trt_runtime", "rtx_runtime", "rtx_card"))
_REPLACED = ("tensorrt", "tensorrt_rtx", "cuda", "pynvml", "pycuda", "double_settings", *_OURS)

Tell = Callable[..., None]


def _of_doubles(name: str) -> bool:
    return any(name == replaced or name.startswith(f"{replaced}.") for replaced in _REPLACED)


def _forget() -> None:
    for name in [name for name in sys.modules if _of_doubles(name)]:
        del sys.modules[name]


@contextmanager
def replaced(folder: Path) -> Iterator[Tell]:
    """The doubles in the libraries' place; the user's cache folder is in ``folder``."""
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _of_doubles(name)}
    told: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:

        def tell(**settings: Any) -> None:
            if settings.keys() & {"version", "rtx_version"}:
                _forget()  # it is read when TensorRT is imported
            told.update(settings)
            patch.setenv("DOUBLE", json.dumps(told))

        tell()
        patch.syspath_prepend(str(SITE))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(cuda, "driver", lambda: DRIVER)
        yield tell
        _forget()
    sys.modules.update(aside)


@pytest.fixture
def doubles(tmp_path: Path) -> Iterator[Tell]:
    """Call it with settings of ``double_settings.DEFAULTS`` to make the doubles do something else."""
    with replaced(tmp_path) as tell:
        yield tell
