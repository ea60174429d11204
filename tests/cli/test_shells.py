"""Completion in the shells themselves, each where it is installed, after the one line of its start file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'autoload -Uz compinit && compinit -u -D; eval "$(trt-layermerge completion zsh)"; print REA""DY'
zpty -r shell shown '*READY*'
zpty -w -n shell $'trt-layermerge {typed}\\t'
zpty -r shell shown '*{completed}*'
print {completed}
"""  # on a terminal of its own; what was typed so far holds nothing of what is waited for

SCRIPTS = {
    "bash": """
eval "$(trt-layermerge completion bash)"
COMP_WORDS=(trt-layermerge {typed}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_trt_layermerge_completion trt-layermerge
echo "${{COMPREPLY[@]}}"
""",
    "zsh": ZSH,
    "fish": "trt-layermerge completion fish | source; complete -C 'trt-layermerge {typed}'",
}


@pytest.mark.parametrize(("typed", "completed"), [("compr", "compress"), ("compress m.py --runtime estim", "estimate")])
@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_shell_completes_what_is_begun(shell: str, typed: str, completed: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "trt-layermerge"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trt_layermerge.cli.main "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = [
        shell,
        *(["-f"] if shell == "zsh" else []),
        "-c",
        SCRIPTS[shell].format(typed=typed, completed=completed),
    ]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout.split()[:1]) == (0, [completed]), ran.stderr
