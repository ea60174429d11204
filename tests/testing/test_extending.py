"""The runtime that docs/extending.md shows is one: its code, as it stands there, passes the suite."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from trt_layermerge.cli.main import cli
from trt_layermerge.runtimes import registry
from trt_layermerge.runtimes.base import Runtime
from trt_layermerge.runtimes.registry import get_runtime
from trt_layermerge.testing.runtimes import RuntimeConformance

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
NAME = "onnx_reference_of_the_page"


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's module, and the entry point with which another package adds it."""
    (source,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "RuntimeKind)" in block)
    module = ModuleType(NAME)
    exec(compile(source, "docs/extending.md", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, NAME, module)
    points = [EntryPoint("onnx-reference", f"{NAME}:KIND", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    registry._entries.cache_clear()
    yield
    registry._entries.cache_clear()


class TestOnnxReference(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return get_runtime("onnx-reference")


def test_doctor_works_with_it() -> None:
    done = CliRunner().invoke(cli, ["doctor", "--runtime", "onnx-reference"], catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout.count("onnx-reference") >= 2
