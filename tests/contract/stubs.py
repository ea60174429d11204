"""Stubs of NVIDIA's compiled modules, as mypy reads them: ``python stubs.py MODULE FILE``, in a process of its own.

mypy's own generator reads signatures off the docstrings that pybind11 writes. It was preferred to pybind11-stubgen,
whose stub of TensorRT 11.4 has 35 syntax errors to its one. What docstrings do not say in Python is put right, for
any module alike:

1. a class that was registered after the method that names it is written in C++ (``nvonnxparser::IParserError``);
2. a parameter without a default may follow one with a default, which is no Python; the default is left out there;
3. the members of an enum are members of that enum, not of ``dict``;
4. ``bool`` is Python's type, although the module has a constant of that name;
5. what the library calls ``buffer`` and ``capsule`` has names in Python;
6. a class whose docstring says that it supports the buffer protocol does;
7. a class that is indexed by integers and has a length can be iterated over;
8. whatever takes ``Dims`` takes a sequence of integers, as the docstring of ``Dims`` says.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from mypy import stubgenc

_CPP_NAME = re.compile(r"\b(?:nv\w+::)+(\w+)")
_EARLY_DEFAULT = re.compile(r" = \.\.\.(?=, \w+: [^=,()]+[,)])")
_WORDS = {
    r"(?<=[ \[])bool\b": "builtins.bool",
    r"(?<=: )buffer\b": "collections.abc.Buffer",
    r"(?<=: )capsule\b": "object",
    r"(?<=\w: )Dims(?=[,)])": "Dims | collections.abc.Sequence[int]",
}


def main() -> None:
    """Write the stub of a module."""
    name, target = sys.argv[1:]
    package = importlib.import_module(name)
    module = compiled(package)
    infer = stubgenc.infer_sig_from_docstring
    stubgenc.infer_sig_from_docstring = lambda doc, function: infer(pythonic(doc, module), function)
    generator = stubgenc.InspectionStubGenerator(module.__name__, known_modules=[], module=module)
    generator.generate_module()
    text = corrected(generator.output(), module) + "__version__: str\n" + helpers(package)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(text)


def compiled(package: ModuleType) -> ModuleType:
    """The extension module that a package's classes come from."""
    return sys.modules[package.Builder.__module__]


def pythonic(doc: str | None, module: ModuleType) -> str | None:
    """A docstring with Python's name for each C++ class: the same, or the same without its leading ``I``."""

    def name(match: re.Match[str]) -> str:
        found = (n for n in (match[1], match[1].removeprefix("I")) if hasattr(module, n))
        return next(found, "object")

    return doc and _CPP_NAME.sub(name, doc)


def corrected(text: str, module: ModuleType) -> str:
    """A stub that is Python, with what docstrings say in words."""
    while text != (shorter := _EARLY_DEFAULT.sub("", text)):
        text = shorter
    text = re.sub(r"__members__: ClassVar\[dict\] = .*\n(\s+\w+: ClassVar\[([\w.]+)\])", _members, text)
    for pattern, replacement in _WORDS.items():
        text = re.sub(pattern, replacement, text)
    for name, value in vars(module).items():
        if isinstance(value, type) and (more := "".join(f"\n    {line} ..." for line in unwritten(value))):
            text = re.sub(rf"(?m)^class {name}\b.*:$", rf"\g<0>{more}", text)
    return "import builtins, collections.abc\n" + text


def unwritten(kind: type) -> Iterator[str]:
    """Methods of Python's protocols that a class offers without naming them."""
    if "buffer protocol" in (kind.__doc__ or ""):
        yield "def __buffer__(self, flags: int, /) -> memoryview:"
    indexed = "-> int" in (getattr(kind, "__getitem__", None).__doc__ or "")
    if indexed and hasattr(kind, "__len__") and not hasattr(kind, "__iter__"):
        yield "def __iter__(self) -> collections.abc.Iterator[int]:"


def _members(match: re.Match[str]) -> str:
    return f"__members__: ClassVar[dict[str, {match[2]}]]\n{match[1]}"


def helpers(package: ModuleType) -> str:
    """Functions that the package adds in Python, such as ``nptype``; it says nothing of their types."""
    source = sys.modules[compiled(package).__package__ or package.__name__]
    added = (name for name, value in vars(source).items() if callable(value) and value.__module__ == source.__name__)
    return "".join(f"\ndef {name}(argument: object, /) -> object: ...\n" for name in added if name[0] != "_")


if __name__ == "__main__":
    main()
