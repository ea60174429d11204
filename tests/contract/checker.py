"""Which names of a typed module some source touches, and whether they are there: mypy's inference, asked by its API.

A name counts as touched where an expression or an annotation mentions it, on whatever variable: the variable's type is
inferred. An access that mypy cannot check, because the module leaves a type open, is reported too: with such accesses
"nothing is missing" would say little.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mypy import build
from mypy.modulefinder import BuildSource
from mypy.nodes import Expression, MemberExpr, MypyFile, RefExpr, TypeInfo
from mypy.options import Options
from mypy.traverser import NameAndMemberCollector
from mypy.types import (
    AnyType,
    CallableType,
    Instance,
    Overloaded,
    ProperType,
    Type,
    TypeType,
    UnionType,
    get_proper_type,
)

ROOT = Path(__file__).parents[2]
_LEFT_OUT = ("cuda", "google", "numpy", "onnx", "onnxruntime", "pycuda", "pynvml", "torch")


@dataclass(frozen=True)
class Findings:
    """What was found in some source files.

    Attributes:
        touched: Names of the modules that they touch, such as ``tensorrt.Builder.create_network``.
        errors: mypy's messages; a name that does not exist is one of them.
        unchecked: Accesses whose type the modules leave open, each with its place.
    """

    touched: frozenset[str]
    errors: tuple[str, ...]
    unchecked: tuple[str, ...]


def check(files: Iterable[Path], stubs: Path, modules: Iterable[str]) -> Findings:
    """Check source files against the stubs of modules, which lie in a folder."""
    names = {file: _module(file) for file in files}
    result = build.build([BuildSource(str(file), name, None) for file, name in names.items()], _options(stubs))
    offered = {name: frozenset(result.graph[name].tree.names) for name in modules if name in result.graph}
    seen = _Seen(offered, result.types)
    for file, name in names.items():
        tree = result.graph[name].tree
        assert tree is not None
        seen.look_at(tree, file)
    ours = tuple(error for error in result.errors if ".pyi:" not in error)
    return Findings(frozenset(seen.touched), ours + tuple(seen.missing), tuple(seen.unchecked))


def _module(file: Path) -> str:
    inside = file.is_relative_to(ROOT)
    return ".".join(file.relative_to(ROOT).with_suffix("").parts) if inside else file.stem


def _options(stubs: Path) -> Options:
    options = Options()
    options.mypy_path = [str(stubs), str(ROOT)]
    options.incremental = False  # what mypy takes from its cache has no expressions to look at
    options.cache_dir = os.devnull
    options.export_types = options.preserve_asts = options.local_partial_types = True
    options.check_untyped_defs = options.disallow_untyped_calls = options.ignore_missing_imports = True
    options.follow_imports = "silent"
    left_out: dict[str, object] = {"follow_imports": "skip", "follow_imports_for_stubs": True}
    options.per_module_options = {name: left_out for top in _LEFT_OUT for name in (top, f"{top}.*")}
    options.build_per_module_cache()
    return options


class _Seen:
    """Collects what source files touch."""

    def __init__(self, modules: dict[str, frozenset[str]], types: dict[Expression, Type]) -> None:
        self._modules, self._types = modules, types
        self.touched: set[str] = set()
        self.missing: list[str] = []
        self.unchecked: list[str] = []

    def look_at(self, tree: MypyFile, path: Path) -> None:
        """Look at a file's expressions, then at its annotations, which are no expressions to mypy."""
        collector = NameAndMemberCollector()
        tree.accept(collector)
        for node in collector.member_exprs:
            owners = list(self._owners(node))
            self.touched.update(f"{owner}.{node.name}" for owner in owners)
            if owners and _open(get_proper_type(self._types.get(node))):
                self.unchecked.append(f"{path}:{node.line}: {owners[0]}.{node.name} has no type")
        self._look_at_text(ast.parse(path.read_text()), path)

    def _look_at_text(self, tree: ast.Module, path: Path) -> None:
        """Look at annotations, and at what mypy does not reach: modules do not say what may be ``None``."""
        imports = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        modules = {alias.asname or alias.name: alias.name for alias in imports if alias.name in self._modules}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                module = modules[node.value.id]
                self.touched.add(f"{module}.{node.attr}")
                if node.attr not in self._modules[module]:
                    self.missing.append(f"{path}:{node.lineno}: error: {module} has no {node.attr}")

    def _owners(self, node: MemberExpr) -> Iterable[str]:
        """Module or class that an attribute is looked up in, as far as they are of the modules."""
        if isinstance(node.expr, RefExpr) and node.expr.fullname in self._modules:
            yield node.expr.fullname
            return
        for kind in _classes(get_proper_type(self._types.get(node.expr))):
            for base in kind.mro:
                if node.name in base.names and base.module_name in self._modules:
                    yield base.fullname
                    break


def _classes(kind: ProperType | None) -> Iterable[TypeInfo]:
    """Classes whose attributes a value of this type has."""
    if isinstance(kind, UnionType):
        for item in kind.items:
            yield from _classes(get_proper_type(item))
    elif isinstance(kind, Instance):
        yield kind.type
    elif isinstance(kind, TypeType):
        yield from _classes(get_proper_type(kind.item))
    elif isinstance(kind, CallableType | Overloaded) and kind.is_type_obj():
        yield kind.type_object()


def _open(kind: ProperType | None) -> bool:
    """Whether a type, or what a function of this type returns, is ``Any``."""
    if isinstance(kind, Overloaded):
        return any(_open(item) for item in kind.items)
    if isinstance(kind, CallableType):
        return isinstance(get_proper_type(kind.ret_type), AnyType)
    return isinstance(kind, AnyType)
