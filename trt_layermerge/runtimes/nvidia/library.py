"""NVIDIA's builder libraries: which module, which versions, and how to install one. Standard library only."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import dataclass
from types import ModuleType

from trt_layermerge.children import child_command, child_environment
from trt_layermerge.errors import RuntimeNotAvailableError
from trt_layermerge.extras import install_hint


@dataclass(frozen=True)
class BuilderLibrary:
    """Under which terms a library is used.

    Attributes:
        module: What is imported.
        title: What people call it.
        oldest: The oldest version that is used.
        why: What older ones do wrong.
        install: How to get it.
    """

    module: str
    title: str
    oldest: tuple[int, ...]
    why: str
    install: str


TENSORRT = BuilderLibrary(
    "tensorrt",
    "TensorRT",
    (10, 9),
    "they lack calls that this tool makes",
    f"{install_hint('tensorrt')} (tensorrt-cuda12 for drivers 535 to 579); it needs an NVIDIA GPU with its driver, and "
    "fetches NVIDIA's libraries from NVIDIA's own index",
)
TENSORRT_RTX = BuilderLibrary(
    "tensorrt_rtx",
    "TensorRT-RTX",
    (1, 7, 1),
    "they compile float32 matrix products for SM75 that return zeros",
    install_hint("tensorrt-rtx", "'tensorrt-rtx-cu12>=1.7.1'"),
)
_LIBRARIES = {library.module: library for library in (TENSORRT, TENSORRT_RTX)}


def load_library(name: str) -> ModuleType:
    """Import a builder library.

    Args:
        name: Of its module.

    Raises:
        RuntimeNotAvailableError: It is missing, does not load, or is too old; the message says what to install.
    """
    library = _LIBRARIES[name]
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:  # the package, or one of the shared objects that it loads
        raise RuntimeNotAvailableError(f"{library.title} is not here: {error}", hint=library.install) from error
    if _numbers(module.__version__) < library.oldest:
        oldest = ".".join(map(str, library.oldest))
        raise RuntimeNotAvailableError(
            f"{library.title} {module.__version__} is too old: {oldest} is the oldest that is used, because "
            f"{library.why} before it",
            hint=library.install,
        )
    return module


def version_of(library: BuilderLibrary) -> str:
    """The version that is here, asked in a process of its own: importing it may end the process.

    Raises:
        RuntimeNotAvailableError: It is missing, too old, or crashes.
    """
    command = child_command(__name__, library.module)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=child_environment())
    if done.returncode == 0:
        return done.stdout.split()[-1]
    if done.returncode < 0:
        raise RuntimeNotAvailableError(
            f"importing it crashes (signal {-done.returncode})", hint=f"install it again: {library.install}"
        )
    lines = [line for line in done.stderr.splitlines() if "Error: " in line]
    why = lines[-1].split("Error: ", 1)[1] if lines else "it cannot be imported"
    raise RuntimeNotAvailableError(why, hint=library.install)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, such as (10, 16, 1, 11)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


if __name__ == "__main__":
    print(load_library(sys.argv[1]).__version__)
