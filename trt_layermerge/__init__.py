"""Makes trained CNNs shallower and measurably faster on one particular device.

The functions named here are the Python interface; each is imported, and torch with it, when it is first used. The
packages, and what they may import, are listed in CONTRIBUTING.md. Logs go to the logger ``trt_layermerge``.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trt_layermerge.api import (
        compress,
        deliver,
        frontier,
        load,
        load_several,
        measure_importance,
        profile,
        profile_for_budget,
        solve,
        train_along,
        validate,
    )

__all__ = [
    "compress",
    "deliver",
    "frontier",
    "load",
    "load_several",
    "measure_importance",
    "profile",
    "profile_for_budget",
    "solve",
    "train_along",
    "validate",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
