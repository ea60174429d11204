"""NVIDIA's builder libraries: which module, which versions, and how to install one. Standard library only."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from trt_layermerge.errors import RuntimeNotAvailableError

Library = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class _Terms:
    """Under which terms a library is used.

    Attributes:
        title: What people call it.
        oldest: The oldest version that is used.
        why: What older ones do wrong.
        install: The command that installs it.
    """

    title: str
    oldest: tuple[int, ...]
    why: str
    install: str


_TERMS: dict[str, _Terms] = {
    "tensorrt": _Terms(
        "TensorRT",
        (10, 9),
        "they lack calls that this tool makes",
        "pip install 'tensorrt>=10.9'  (it needs an NVIDIA GPU with its driver)",
    ),
    "tensorrt_rtx": _Terms(
        "TensorRT-RTX",
        (1, 7, 1),
        "they compile float32 matrix products for SM75 that return zeros",
        "pip install 'tensorrt-rtx-cu12>=1.7.1'",
    ),
}


def load_library(name: Library) -> ModuleType:
    """Import a builder library.

    Raises:
        RuntimeNotAvailableError: It is missing, does not load, or is too old; the message says what to install.
    """
    terms = _TERMS[name]
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # the package, or one of the shared objects that it loads
        raise RuntimeNotAvailableError(f"{terms.title} is not here: {error}", hint=terms.install) from error
    if _numbers(module.__version__) < terms.oldest:
        oldest = ".".join(map(str, terms.oldest))
        raise RuntimeNotAvailableError(
            f"{terms.title} {module.__version__} is too old: {oldest} is the oldest that is used, because {terms.why}"
            " before it",
            hint=terms.install,
        )
    return module


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, such as (10, 16, 1, 11)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
