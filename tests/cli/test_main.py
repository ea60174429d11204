from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from trt_layermerge.cli import main as entry
from trt_layermerge.cli.main import COMMANDS, INTERRUPTED
from trt_layermerge.errors import ExitCode, VerificationError
from trt_layermerge.runtimes.registry import runtime_names

NEEDS_NOTHING = [["--help"], ["-h"], ["--version"], ["no-such-command"], *([name, "--help"] for name in COMMANDS)]


@pytest.mark.parametrize("arguments", NEEDS_NOTHING)
def test_what_needs_no_torch_imports_none(arguments: list[str]) -> None:
    code = f"""
import sys
from trt_layermerge.cli.main import main
try:
    main({arguments})
finally:
    print([name for name in ("torch", "onnxruntime") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert ran.returncode == (2 if arguments == ["no-such-command"] else 0)


def test_help_lists_all_commands_in_the_order_of_a_job(run: Any) -> None:
    lines = run("--help").out.split("Commands:")[1].splitlines()
    assert [line.split()[0] for line in lines if line[2:3].isalpha()] == list(COMMANDS)


def test_the_version_names_the_runtimes_and_theirs(run: Any) -> None:
    first, *others = run("--version").out.splitlines()
    assert first == f"trt-layermerge, version {version('trt_layermerge')}"
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in others}
    assert list(told) == runtime_names()
    assert told["onnxruntime"] == f"onnxruntime {version('onnxruntime')}"
    assert told["torch"] == f"torch {version('torch')}"
    assert all(text == "not installed" or text[-1].isalnum() for text in told.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(run: Any, name: str) -> None:
    ran = run(name, "--help")
    assert (ran.code, ran.err) == (0, "") and ran.out.startswith(f"Usage: trt-layermerge {name} ")
    command = importlib.import_module(f"trt_layermerge.cli.commands.{name}").command
    assert command.name == name
    for parameter in command.params:
        assert any(spelling in ran.out for spelling in (*parameter.opts, parameter.make_metavar(_context(command))))


def _context(command: Any) -> Any:
    import click

    return click.Context(command)


ENDS = {
    "ours": (
        VerificationError("it differs", hint="do this"),
        ExitCode.PROOF_FAILED,
        "error: it differs\n  hint: do this",
    ),
    "disk full": (OSError(28, "No space left on device"), ExitCode.BAD_INPUT, "error: No space left on device"),
    "no permission": (PermissionError(13, "Permission denied", "/x/y"), ExitCode.BAD_INPUT, "error: /x/y: Permission"),
    "Ctrl-C": (KeyboardInterrupt(), INTERRUPTED, "error: interrupted; the same command goes on where it stopped"),
}


@pytest.mark.parametrize("name", ENDS)
def test_every_error_is_one_message_and_an_exit_code(run: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error, code, message = ENDS[name]

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(entry.cli, "invoke", fail)
    ran = run("verify")
    assert ran.code == code and ran.err.startswith(message) and ran.out == "" and ran.err.count("error:") == 1


def test_a_bug_of_ours_keeps_its_traceback(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.cli, "invoke", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        run("verify")
