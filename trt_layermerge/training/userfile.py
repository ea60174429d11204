"""A function of a user's Python file, imported as Python imports it: of tasks, of images, of metrics.

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
from typing import TypeVar

from trt_layermerge.errors import TaskError
from trt_layermerge.usercode import user_code

T = TypeVar("T")


def file_and_function(path: Path, function: str) -> tuple[Path, str]:
    """The file of ``FILE.py`` or ``FILE.py:NAME``, absolute, and the name of the function in it, or the usual one."""
    file, colon, named = str(path).rpartition(":")
    if not colon or path.is_file():
        return path.resolve(), function
    return Path(file).resolve(), named


def with_function(file: Path, name: str, purpose: str, use: Callable[[Callable[..., object]], T]) -> T:
    """Import a file and do something with a function of it, what either raises being the user's.

    The file's folder is importable meanwhile, so that it finds its siblings. They are forgotten again afterwards: a
    ``data.py`` beside one task never serves for the ``data.py`` of another.

    Args:
        file: Absolute.
        name: Of the function.
        purpose: What it does, for a hint: a verb and its object.
        use: What to do with it.

    Raises:
        TaskError: There is no such file or function, or code in it raises.
    """
    if not file.is_file():
        raise TaskError(f"there is no file {file}", hint=f"name a Python file with a function {name}() that {purpose}")
    with _importable(file), user_code(str(file), TaskError):
        return use(_function(_imported(file), file, name, purpose))


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


def _function(module: ModuleType, file: Path, name: str, purpose: str) -> Callable[..., object]:
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]  # callable() is all that can be known here
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    close = get_close_matches(name, own, n=1)
    hint = f"did you mean {file.name}:{close[0]}?" if close else f"write one that {purpose}: def {name}(...): ..."
    raise TaskError(f"{file} has no function {name!r}", hint=hint)


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
