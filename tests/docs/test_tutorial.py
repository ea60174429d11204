"""The tutorial as it stands: its files are written, its commands run, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import DELIVERED
from tests.docs.pages import ROOT, commands, snippets

TUTORIAL = ROOT / "docs" / "tutorial.md"
pytest.importorskip("torchvision", reason="the tutorial's pictures are read with torchvision")


def lines() -> list[str]:
    """What is typed, in order."""
    typed = [snippet.text for snippet in snippets(TUTORIAL) if snippet.language == "console"]
    return [line.removeprefix("$ ") for text in typed for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tutorial's files."""
    made = tmp_path_factory.mktemp("tutorial")
    files = re.findall(r"as `(\w+\.py)`", TUTORIAL.read_text())
    code = [snippet.text for snippet in snippets(TUTORIAL) if snippet.language == "python"]
    assert files == ["net.py", "prepare.py"] and len(code) == 2
    for name, text in zip(files, code, strict=True):
        (made / name).write_text(text)
    return made


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the tutorial with this Python and this checkout."""
    python = f"{sys.executable} -W ignore"
    known = {"python": python, "trt-layermerge": f"{python} -m trt_layermerge.cli.main"}
    program, _, rest = line.partition(" ")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [*known[program].split(), *rest.split()]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_every_command_does_what_it_should(folder: Path) -> None:
    for line in lines():
        if line.startswith("pip install"):  # what is installed here is this checkout
            continue
        ran = run(line, folder)
        assert ran.returncode in (DELIVERED if " compress " in line else (0,)), f"{line}\n{ran.stdout}\n{ran.stderr}"
    for name in ("out/manifest.json", "out/report.html", "app/net.py", "unlabelled/compressed.engine.onnx"):
        assert (folder / name).is_file(), name


def test_from_installation_to_an_engine_it_takes_four_commands_at_most() -> None:
    until = next(index for index, line in enumerate(lines()) if line.startswith("trt-layermerge compress"))
    assert until + 1 <= 4 and len(commands(TUTORIAL)) >= 4
