"""What a task is, whatever it is called: a hash of its code and of its data, for the keys of what is measured on it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from torch import Tensor

from trt_layermerge.errors import TaskError, say
from trt_layermerge.network.inputs import Values, as_tuple
from trt_layermerge.training.checkpoint import digest
from trt_layermerge.training.task import Task
from trt_layermerge.training.task_check import DataSet, first_batch

_DATA: tuple[DataSet, ...] = ("calibration_batches", "held_out_batches")
"""What does not change from one reading to the next; training data is shuffled, test data decides nothing."""


def identity_of(task: Task, source: str = "") -> str:
    """Sixteen digits that are others for another task: of its code, its first batches, and the length of an epoch.

    Args:
        task: The task, whose calibration and held-out data are in order.
        source: Of its code; see ``source_digest``.

    Raises:
        TaskError: It has no such data.
    """
    parts = [source]
    with suppress(TaskError):  # a task that is never trained on need not have one
        parts.append(str(task.steps_per_epoch))
    for data in _DATA:
        once, again = (_batch_digest(*first_batch(task, data)) for _ in range(2))
        if once != again:
            say(
                f"task {task.name!r}: {data} yields other data each time it is read; it must always be the same, or "
                "what is measured on it cannot be compared"
            )
        parts.append(once if once == again else "changing")
    return blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def source_digest(file: Path) -> str:
    """Hash of a Python file, and of the files and packages beside it that it imports, wherever they do."""
    state = blake2b(digest_size=8)
    for path in sorted(_sources(file.resolve())):
        state.update(f"{path.relative_to(file.resolve().parent)}\n".encode())
        state.update(blake2b(path.read_bytes()).digest())
    return state.hexdigest()


def _batch_digest(inputs: tuple[Tensor, ...], target: Values) -> str:
    targets = {f"target{index or ''}": values for index, values in enumerate(as_tuple(target))}
    return digest(targets | {str(index): values for index, values in enumerate(inputs)})


def _sources(file: Path) -> set[Path]:
    found, todo = set[Path](), [file]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path):
            module, package = file.parent / f"{name}.py", file.parent / name
            todo += [module] if module.is_file() else sorted(filter(Path.is_file, package.rglob("*.py")))
    return found


def _imported(path: Path) -> Iterator[str]:
    """The packages that a file imports by name; what a package imports of itself is part of it."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # whoever imports it is told
    own = __name__.partition(".")[0]  # which may lie beside it, and whose changes its formats tell
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        yield from (first for name in names if (first := name.partition(".")[0]) != own)
