"""What source touches of an untyped module, told by the text of the variable that holds the module."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CALL = re.compile(r"\([^()]*\)")
"""What an object is made with, in ``Device(0).name``."""


@dataclass(frozen=True)
class Use:
    """A name of the module in the source.

    Attributes:
        name: Such as ``cudaMalloc`` or ``cudaError_t.cudaSuccess``.
        arguments: Number of positional arguments and names of keywords, where it is called; ``None`` where it is not.
        place: File and line.
    """

    name: str
    arguments: tuple[int, tuple[str, ...]] | None
    place: str


def uses(file: Path, holders: Iterable[str]) -> Iterator[Use]:
    """Names that a file looks up in variables that hold a module, such as ``self._runtime``."""
    tree = ast.parse(file.read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            text = ast.unparse(node)
            for holder in holders:
                if text.startswith(f"{holder}."):
                    name = _CALL.sub("", text.removeprefix(f"{holder}."))
                    yield Use(name, _arguments(calls.get(id(node))), f"{file.name}:{node.lineno}")


def _arguments(call: ast.Call | None) -> tuple[int, tuple[str, ...]] | None:
    return call and (len(call.args), tuple(keyword.arg or "" for keyword in call.keywords))


def faults(found: Iterable[Use], look_up: Callable[[str], object]) -> list[str]:
    """What is wrong with uses of a module: names that do not exist, calls that do not fit."""
    wrong = []
    for use in found:
        try:
            value = look_up(use.name)
            if use.arguments is not None:
                positional, keywords = use.arguments
                inspect.signature(value).bind(*range(positional), **dict.fromkeys(keywords))
        except (AttributeError, TypeError) as error:
            wrong.append(f"{use.place}: {use.name}: {error}")
    return wrong
