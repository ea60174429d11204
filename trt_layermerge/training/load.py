"""A task by its name, ``NAME:FOLDER``, or from a user's Python file: ``FILE.py`` or ``FILE.py:factory``.

The file is the user's own program and is run as one; what is promised here is that whatever is wrong with it becomes
one ``TaskError`` with its place in the file, and that a file which failed leaves nothing behind.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import cast

from trt_layermerge.errors import TaskError
from trt_layermerge.training.datasets import NAMED, Settings
from trt_layermerge.training.task import Task
from trt_layermerge.usercode import user_code

HOW = f"name a Python file, FILE.py or FILE.py:function; or {', '.join(f'{name}:FOLDER' for name in NAMED)}"
FACTORY = "task"
"""Name of the function that is called where none is given."""


def is_named(path: Path) -> bool:
    """Whether it is ``NAME:FOLDER`` for a task of ``datasets``, and no file."""
    name, colon, _ = str(path).partition(":")
    return bool(colon) and name in NAMED


def task_file(path: Path) -> Path:
    """The Python file of a task that is no named one, absolute."""
    return _parts(path)[0]


def load_task(path: Path, settings: Settings | None = None) -> Task:
    """Make a named task, or import a task file and call its factory.

    The file's folder is importable while it is, so that it finds its siblings.

    Siblings are forgotten again afterwards: a ``data.py`` beside one task never serves for the ``data.py`` of another.

    Args:
        path: ``NAME:FOLDER`` for a task of ``datasets``; ``FILE.py``, or ``FILE.py:factory`` for a function with
            another name than ``task``.
        settings: For a named task; a file says these things for itself.

    Raises:
        TaskError: There is no such file or function, the code in it raises, or what it returns is not a task.
    """
    if is_named(path):
        name, _, folder = str(path).partition(":")
        return NAMED[name](Path(folder), settings or Settings())
    file, factory = _parts(path)
    if not file.is_file():
        raise TaskError(f"there is no task file {file}", hint=HOW)
    with _importable(file), user_code(str(file), TaskError):
        made = _function(_imported(file), file, factory)()
        if missing := _missing(made):
            raise TaskError(
                f"{file}: {factory}() returns a {type(made).__name__}, which is no task: it lacks {', '.join(missing)}",
                hint="return a trt_layermerge.training.task.Classification, or add what is missing",
            )
    return cast(Task, made)


def _parts(path: Path) -> tuple[Path, str]:
    """The file, absolute, and the name of the function in it."""
    file, colon, factory = str(path).rpartition(":")
    if not colon or path.is_file():
        return path.resolve(), FACTORY
    return Path(file).resolve(), factory


def _module_name(file: Path) -> str:
    """A name of its own for each file: a ``task.py`` must not hide, or be hidden by, another."""
    return f"_task_{blake2b(str(file).encode(), digest_size=8).hexdigest()}"


def _imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(_module_name(file), file)
    if spec is None or spec.loader is None:
        raise TaskError(f"{file} is not a Python file", hint="its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up here
    spec.loader.exec_module(module)
    return module


def _function(module: ModuleType, file: Path, name: str) -> Callable[[], object]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]  # callable() is all that can be known here
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    close = get_close_matches(name, own, n=1)
    hint = f"did you mean {file.name}:{close[0]}?" if close else f"write one that returns a task: def {name}(): ..."
    raise TaskError(f"{file} has no function {name!r}", hint=hint)


def _missing(made: object) -> list[str]:
    """Members of ``Task`` that a thing does not have; methods must be callable."""
    members = {name: value for name, value in vars(Task).items() if not name.startswith("_")}
    return [
        name
        for name, value in members.items()
        if not hasattr(made, name) or not (isinstance(value, property) or callable(getattr(made, name)))
    ]


@contextmanager
def _importable(file: Path) -> Iterator[None]:
    """The file's folder comes first on ``sys.path``; then its modules are forgotten, all but a file that loaded."""
    folder, own = str(file.parent), _module_name(file)
    sys.modules.pop(own, None)
    before = set(sys.modules)
    importlib.invalidate_caches()  # the user may have written a sibling a moment ago
    sys.path.insert(0, folder)
    try:
        yield
        before.add(own)
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - before:
            if _lies_in(sys.modules[name], file.parent):
                del sys.modules[name]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module is a file of the folder itself; a package below it may well be one that others use too."""
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().parent == folder and not hasattr(module, "__path__")
