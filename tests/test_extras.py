"""No message and no page names a command that fails."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from trt_layermerge.extras import install_hint

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = sorted((ROOT / "trt_layermerge").rglob("*.py"))
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]


def hinted() -> list[tuple[str, str]]:
    """Every extra that the source hints at, with its file."""
    calls = [
        (node, file.name)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "install_hint"
    ]
    return [(ast.literal_eval(node.args[0]), name) for node, name in calls]


def test_every_extra_that_is_named_exists() -> None:
    found = hinted()
    assert {extra for extra, _ in found} >= {"tensorrt", "tensorrt-rtx", "zoo", "images", "multi-gpu", "fleet"}
    assert [pair for pair in found if pair[0] not in EXTRAS] == []
    for page in PAGES:
        for listed in re.findall(r"'\.\[([\w,-]+)\]'", page.read_text()):
            assert set(listed.split(",")) <= EXTRAS.keys(), page


def test_nothing_asks_the_index_for_this_package() -> None:
    """There is no release of it."""
    asks = re.compile(r"pip install [^\n`]*trt[-_]layermerge\[")
    assert [file for file in (*SOURCES, *PAGES) if asks.search(file.read_text())] == []


def test_a_hint_is_a_command() -> None:
    assert install_hint("zoo") == "pip install '.[zoo]' in a checkout of trt_layermerge"
    assert install_hint("zoo", "timm").startswith("pip install timm, or pip install '.[zoo]'")


@pytest.mark.parametrize(("file", "cuda"), [("constraints.txt", "13"), ("constraints-cuda12.txt", "12")])
def test_constraints_are_of_one_cuda(file: str, cuda: str) -> None:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / file).read_text(), re.MULTILINE))
    suffixes = {match.group(1) for name in pins if (match := re.fullmatch(r"nvidia-.*-cu(\d+)", name))}
    assert suffixes == {cuda} and pins["cuda-bindings"].split(".")[0] == cuda
    assert {"torch", "torchvision", "onnx", "numpy", "pytest", "ruff", "tensorrt-rtx-cu12"} <= {
        name.replace("_", "-") for name in pins
    }
