"""The table of docs/errors.md, made of ``errors.py``: ``python -m tests.error_table > docs/errors.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from trt_layermerge import errors
from trt_layermerge.cli.main import INTERRUPTED
from trt_layermerge.errors import ExitCode, LayerMergeError


def error_classes() -> list[type[LayerMergeError]]:
    """Every class that a command can end with, in the order of ``errors.py``."""
    found = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, LayerMergeError)]
    return [one for one in found if one is not LayerMergeError]


def _lines() -> Iterator[str]:
    yield "# Errors and exit codes"
    yield ""
    yield "A command that fails prints `error: ` with what and where, often `hint: ` with how to mend it, and ends with"
    yield "a code:"
    yield ""
    yield "| code | error | when |"
    yield "|---|---|---|"
    yield f"| {int(ExitCode.DONE)} | | done |"
    for one in sorted(error_classes(), key=lambda one: one.exit_code):
        yield f"| {int(one.exit_code)} | `{one.__name__}` | {_first_paragraph(one)} |"
    yield f"| {INTERRUPTED} | | interrupted; the same command goes on where it stopped |"
    yield ""
    yield "What the system refuses, such as a full disk, is code 3, too. `make docs/errors.md` writes this page."


def _first_paragraph(one: type) -> str:
    text = " ".join((one.__doc__ or "").split("\n\n")[0].split()).rstrip(".")
    return text[:1].lower() + text[1:]


def table() -> str:
    """The page."""
    return "\n".join(_lines()) + "\n"


if __name__ == "__main__":
    print(table(), end="")
