"""The doubles offer nothing that NVIDIA's libraries do not: every name, and every signature, is looked up in theirs."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.genuine import folder
from tests.doubles.fixtures import SITE

Signatures = dict[str, list[tuple[str, ...]]]
"""Parameters of each overload, by name; of what is no function, nothing."""

OURS = {"SIMULATED"}


def written(stub: Path) -> Signatures:
    """Names in a stub, classes' members as ``Class.member``; what a class inherits is its own."""
    found: Signatures = {}
    classes = {node.name: node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ClassDef)}
    for node in ast.parse(stub.read_text()).body:
        _note(node, "", found, classes)
    return found


def _note(node: ast.stmt, prefix: str, found: Signatures, classes: dict[str, ast.ClassDef]) -> None:
    if isinstance(node, ast.FunctionDef):
        parameters = tuple(a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg != "self")
        found.setdefault(prefix + node.name, []).append(parameters)
    elif isinstance(node, ast.AnnAssign):
        found.setdefault(prefix + ast.unparse(node.target), [])
    elif isinstance(node, ast.ClassDef):
        found.setdefault(prefix + node.name, [])
        for base in node.bases:
            for inner in classes[ast.unparse(base)].body if ast.unparse(base) in classes else []:
                _note(inner, f"{prefix}{node.name}.", found, classes)
        for inner in node.body:
            _note(inner, f"{prefix}{node.name}.", found, classes)


OFFERED = """
import importlib, inspect, json, sys
found = {}
for name, value in vars(importlib.import_module(sys.argv[1])).items():
    if name.startswith("_") and name != "__version__" or inspect.ismodule(value) or name == "setting":
        continue
    found[name] = list(inspect.signature(value).parameters) if inspect.isfunction(value) else None
    if not isinstance(value, type):
        continue
    for member in [*vars(value), *getattr(value, "__members__", ())]:
        if member.startswith("_"):
            continue
        inner = vars(value).get(member)
        function = inspect.isfunction(inner)
        found[f"{name}.{member}"] = list(inspect.signature(inner).parameters)[1:] if function else None
print(json.dumps(found))
"""


def offered(version: str, module: str = "tensorrt") -> dict[str, list[str] | None]:
    """Names of the double of a release, with parameters where they are functions; in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SITE), "DOUBLE": json.dumps({"version": version})}
    command = [sys.executable, "-P", "-c", OFFERED, module]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fits(parameters: list[str], overloads: list[tuple[str, ...]]) -> bool:
    """Whether a call of the double is a call of the library: the same parameters, or the first of them."""
    if any(parameters == list(overload[: len(parameters)]) for overload in overloads):
        return True
    return any((overload and overload[0].startswith("arg")) or overload == ("argument",) for overload in overloads)


def test_names_and_signatures_are_those_of_the_bindings(release: str, stubs: Path) -> None:
    genuine, double = written(stubs / "tensorrt" / "__init__.pyi"), offered(release)
    assert [name for name in double if name not in genuine and name not in OURS] == []
    wrong = {n: (p, genuine[n]) for n, p in double.items() if p is not None and not fits(p, genuine[n])}
    assert wrong == {}
    assert len(double) > 100


def test_names_and_signatures_are_those_of_tensorrt_rtx(rtx_stubs: Path) -> None:
    genuine, double = written(rtx_stubs / "tensorrt_rtx" / "__init__.pyi"), offered("11.4.0.106", "tensorrt_rtx")
    assert [name for name in double if name not in genuine and name not in OURS] == []
    wrong = {n: (p, genuine[n]) for n, p in double.items() if p is not None and not fits(p, genuine[n])}
    assert wrong == {}
    assert {"IRuntimeConfig.set_runtime_cache", "ICudaEngine.create_runtime_config"} < double.keys()


def test_enums_have_the_numbers_of_tensorrt_rtx() -> None:
    genuine = pytest.importorskip("tensorrt_rtx", reason="pip install '.[tensorrt-rtx]'")
    kinds = ("ComputeCapability", "CudaGraphStrategy", "DynamicShapesKernelSpecializationStrategy")
    there = {f"{kind}.{name}": int(one) for kind in kinds for name, one in getattr(genuine, kind).__members__.items()}
    environment = {"PYTHONPATH": str(SITE), "DOUBLE": "{}"}
    assert numbers(list(there), "tensorrt_rtx", **environment) == list(there.values())


NUMBERS = """
import importlib, json, sys
library = importlib.import_module(sys.argv[2])
members = [name.split(".") for name in json.loads(sys.argv[1])]
print(json.dumps([int(getattr(getattr(library, kind), member)) for kind, member in members]))
"""


def numbers(members: list[str], module: str = "tensorrt", **environment: str) -> list[int]:
    """Of members of enums, in the library that is found first; in a process of its own."""
    command = [sys.executable, "-P", "-c", NUMBERS, json.dumps(members), module]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_enums_have_the_numbers_of_the_bindings(release: str, stubs: Path) -> None:
    members = [n for n in offered(release) if n.count(".") == 1 and n.split(".")[1].isupper() and "Dims" not in n]
    assert len(members) > 30
    double = numbers(members, PYTHONPATH=str(SITE), DOUBLE=json.dumps({"version": release}))
    bindings = str(folder(f"tensorrt-{release}"))
    assert double == numbers(members, PYTHONPATH=bindings, LD_LIBRARY_PATH=str(stubs))


@pytest.mark.parametrize("double", ["cuda/bindings/runtime.py", "pynvml.py"])
def test_functions_and_constants_are_those_of_the_libraries(
    double: str,
    runtime: ModuleType,
    nvml: ModuleType,
) -> None:
    genuine = nvml if double == "pynvml.py" else runtime
    tree = ast.parse((SITE / double).read_text())
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"}
    assert len(functions) > 8
    for name, node in functions.items():
        theirs = list(inspect.signature(getattr(genuine, name)).parameters)
        assert [argument.arg for argument in node.args.args] == theirs, name
    for node in tree.body:
        if isinstance(node, ast.Assign) and (name := ast.unparse(node.targets[0]))[0] != "_":
            assert getattr(genuine, name) == ast.literal_eval(node.value), name
        if isinstance(node, ast.ClassDef) and node.name[0] != "_" and node.name.startswith("cuda"):
            for member in node.body if [ast.unparse(base) for base in node.bases] == ["IntEnum"] else []:
                theirs = getattr(getattr(genuine, node.name), ast.unparse(member.targets[0]))
                assert int(theirs) == ast.literal_eval(member.value)
