"""A task by its name, ``NAME:FOLDER``, or from a user's Python file: ``FILE.py`` or ``FILE.py:factory``.

An array of images alone, ``FILE.npy``, is a task without labels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from trt_layermerge.errors import TaskError
from trt_layermerge.training.datasets import NAMED, UNLABELLED, Settings
from trt_layermerge.training.task import Task
from trt_layermerge.training.unlabelled.arrays import ARRAY
from trt_layermerge.training.userfile import file_and_function, with_function

HOW = f"name a Python file, FILE.py or FILE.py:function; or {', '.join(f'{name}:FOLDER' for name in NAMED)}"
FACTORY = "task"
"""Name of the function that is called where none is given."""


def is_named(path: Path) -> bool:
    """Whether it is ``NAME:FOLDER`` for a task of ``datasets``, or an array of images, and no Python file."""
    name, colon, _ = str(path).partition(":")
    return path.suffix == ARRAY or (bool(colon) and name in NAMED)


def is_unlabelled(path: Path) -> bool:
    """Whether it names images without labels."""
    return is_named(path) and str(path).partition(":")[0] not in NAMED.keys() - {UNLABELLED}


def task_file(path: Path) -> Path:
    """The Python file of a task that is no named one, absolute."""
    return file_and_function(path, FACTORY)[0]


def load_task(path: Path, settings: Settings | None = None) -> Task:
    """Make a named task, or import a task file and call its factory.

    Args:
        path: ``NAME:FOLDER`` for a task of ``datasets``; ``FILE.py``, or ``FILE.py:factory`` for a function with
            another name than ``task``.
        settings: For a named task; a file says these things for itself.

    Raises:
        TaskError: There is no such folder, file or function, the code in it raises, or what it returns is not a task.
    """
    if is_named(path):
        name, _, place = str(path).partition(":")
        if name not in NAMED:
            name, place = UNLABELLED, str(path)
        if not place:
            raise TaskError(f"{path} names no folder", hint=f"write {name}:. for the folder that you are in")
        return NAMED[name](Path(place), settings or Settings())
    file, factory = file_and_function(path, FACTORY)
    if not file.is_file():
        raise TaskError(f"there is no task file {file}", hint=HOW)

    def as_task(function: Callable[..., object]) -> Task:
        made = function()
        if missing := _missing(made):
            raise TaskError(
                f"{file}: {factory}() returns a {type(made).__name__}, which is no task: it lacks {', '.join(missing)}",
                hint="return a trt_layermerge.training.task.Classification, or add what is missing",
            )
        return cast(Task, made)

    return with_function(file, factory, "returns a task", as_task)


def _missing(made: object) -> list[str]:
    """Members of ``Task`` that a thing does not have; methods must be callable."""
    kinds = reversed(Task.__mro__)  # a protocol's members are its bases', too
    members = {name: value for kind in kinds for name, value in vars(kind).items() if not name.startswith("_")}
    return [
        name
        for name, value in members.items()
        if not hasattr(made, name) or not (isinstance(value, property) or callable(getattr(made, name)))
    ]
