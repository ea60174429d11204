"""Help, completion and suggestions: how a command says what it can do."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.refusal import refused
from trt_layermerge.cli.main import COMMANDS, INTERRUPTED, cli

PROFILES = [f"profile_{name}" for name in ("validate", "show", "merge", "export", "estimate")]


def command_of(name: str) -> click.Command:
    found: click.Command = importlib.import_module(f"trt_layermerge.cli.commands.{name}").command
    return found


def sections(text: str) -> dict[str, str]:
    """Help by section."""
    parts = re.split(r"^(\w[\w ]*):\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_whole_job_lists_its_options_by_stage(run: Any) -> None:
    found = sections(run("compress", "--help").out)
    assert list(found) == [
        "Network",
        "What may change",
        "Plan",
        "Data",
        "Images without labels",
        "Importance",
        "Where torch computes",
        "Engines",
        "Engine builder",
        "Training",
        "Files and output",
        "Messages",
    ]
    for option, title in {"--weights": "Network", "--budget": "Plan", "--refine": "Plan", "--lr": "Training"}.items():
        assert [name for name, text in found.items() if f"  {option} " in text] == [title]


@pytest.mark.parametrize("name", [*COMMANDS, *PROFILES])
def test_every_option_of_every_command_is_a_sentence(name: str) -> None:
    command = command_of(name)
    for option in command.params:
        if isinstance(option, click.Option):
            text = (option.help or "").split("  [default")[0].strip()
            assert re.fullmatch(r"[A-Z].{8,}[.]|[A-Z].{8,}\.\.\.", text), f"{name} {option.opts[0]}: {text!r}"
            assert "1<=x" not in str(option.get_help_extra(click.Context(command))), f"{option.opts[0]} tells a limit"
    spellings = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
    assert len(spellings) == len(set(spellings))
    assert {"--verbose", "--quiet", "--log-json"} <= set(spellings)


@pytest.mark.parametrize("name", [*COMMANDS, *PROFILES])
def test_defaults_are_told_once(name: str) -> None:
    for line in re.split(r"\n  -", command_of(name).get_help(click.Context(command_of(name)))):
        assert line.count("default:") <= 1, line


@pytest.mark.parametrize("name", [*COMMANDS, *PROFILES])
def test_what_is_empty_is_refused_by_its_name(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As ``--output "$FOLDER"`` without the variable is: it was the current folder, or as if it were not there."""
    monkeypatch.chdir(tmp_path)
    command, before = command_of(name), list[str]()
    for parameter in command.params:
        called = parameter.make_metavar(click.Context(command))
        if isinstance(parameter, click.Argument):
            given = [*before, ""]
            before.append("x")
        elif parameter.is_flag or parameter.count:
            continue
        else:
            given, called = [parameter.opts[0], ""], parameter.opts[0]
        refused(run(*name.split("_"), *given), 2, rf"'{re.escape(called)}'.*: it is empty; give it a value")
    assert not list(tmp_path.iterdir())


HELPFUL = {
    "command": (["comprss"], "Did you mean 'compress'?"),
    "option": (["compress", "m.py", "--speed", "2"], "--speedup"),
    "word": (["compress", "m.py", "--precision", "fp61"], "Did you mean 'fp16'?"),
    "estimator": (["compress", "m.py", "--estimator", "gate"], "Did you mean 'gates'?"),
    "shell": (["completion", "bsh"], "Did you mean 'bash'?"),
    "runtime": (["compress", "m.py", "--runtime", "onnxruntme"], "did you mean 'onnxruntime'?"),
}


@pytest.mark.parametrize("name", HELPFUL)
def test_what_is_misspelt_is_answered_with_what_was_meant(run: Any, name: str) -> None:
    arguments, answer = HELPFUL[name]
    ran = run(*arguments)
    assert ran.code == 2 and answer in ran.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_that_it_can_read(run: Any, shell: str) -> None:
    ran = run("completion", shell)
    assert ran.code == 0 and "_TRT_LAYERMERGE_COMPLETE" in ran.out
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert subprocess.run([shell, "-n"], input=ran.out, text=True, capture_output=True).returncode == 0


COMPLETED = {
    "compr": ["compress"],
    "compress m.py --preci": ["--precision", "--precision-training"],
    "compress m.py --precision f": ["fp32", "fp16"],
    "compress m.py --runtime onnx": ["onnxruntime", "onnxruntime-cuda"],
    "compress m.py --method lay": ["layermerge", "layer-only"],
    "completion z": ["zsh"],
}


@pytest.mark.parametrize("line", COMPLETED)
def test_commands_options_and_their_values_are_completed_without_torch(line: str) -> None:
    words = ["trt-layermerge", *line.split(" ")]
    code = """
import sys
from trt_layermerge.cli.main import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
    told = {"_TRT_LAYERMERGE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": len(words) - 1}
    environment = os.environ | {name: str(value) for name, value in told.items()}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert [one.partition(",")[2] for one in ran.stdout.split()] == COMPLETED[line]
    assert ran.stderr == "False\n"


def test_every_command_is_of_our_own_class() -> None:
    context = click.Context(cli)
    assert {type(cli.get_command(context, name)).__name__ for name in COMMANDS} <= {
        "SectionedCommand",
        "CommandWithVariants",
    }


def test_who_reads_our_output_no_longer_is_told_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "trt_layermerge.cli.main", "completion", "bash"]
    ran = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (INTERRUPTED, "")
