"""Estimators are found by name, those of installed packages too, and everything is made from what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trt_layermerge.errors import UsageError
from trt_layermerge.importance.estimators import registry
from trt_layermerge.importance.estimators.fit import Fit
from trt_layermerge.importance.estimators.registry import DEFAULT_ESTIMATOR, default_estimator, estimators

ASSETS = Path(__file__).parents[2] / "pipeline" / "assets"

SOURCE = """
from dataclasses import dataclass
from typing import Literal
from trt_layermerge.importance.estimators.base import setting
from trt_layermerge.importance.estimators.product import Product

@dataclass(frozen=True)
class Slow(Product):
    name = "slow"
    summary = "as product, but slow"
    group = "snail"
    days: float = setting(2.0, "how long it takes")
    way: Literal["road", "field"] = setting("road", "where it goes", unset="any")
    tired: bool = setting(False, "whether it is tired")
    def seconds(self, request, per_image):
        return self.days * 86400.0

@dataclass(frozen=True)
class Shadow(Product):
    name = "gates"

class Nothing:
    name = "nothing"
"""


@pytest.fixture
def fresh() -> Iterator[None]:
    estimators.cache_clear()
    yield
    estimators.cache_clear()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None) -> Any:
    """Makes a folder what a package with one estimator is to Python, and puts it on the path."""

    def installed(value: str) -> Path:
        info = tmp_path / "snails-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: snails\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\nslow = {value}\n")
        (tmp_path / "snails.py").write_text(SOURCE)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "snails", raising=False)
        return tmp_path

    return installed


def test_names_are_the_estimators_own() -> None:
    assert tuple(estimators()) == ("fit", "product", "finetune", "gates")
    assert all(kind.name == name for name, kind in estimators().items())
    assert default_estimator() == estimators()[DEFAULT_ESTIMATOR]() == Fit()


def test_one_that_a_package_brings_is_found(install: Any) -> None:
    install("snails:Slow")
    assert tuple(estimators())[-1] == "slow" and estimators()["slow"]().in_words == "days 2, way road, tired False"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("snails:Absent", "snails:Absent of the package snails cannot be loaded: AttributeError"),
        ("no_such_module:Slow", "cannot be loaded: ModuleNotFoundError"),
        ("snails:Nothing", "no subclass of Estimator"),
        ("snails:Shadow", "is called 'gates', and so is Gates"),
    ],
)
def test_one_that_is_none_is_told_with_its_package(install: Any, value: str, said: str) -> None:
    install(value)
    with pytest.raises(UsageError, match=said) as caught:
        estimators()
    assert "uninstall" in str(caught.value)


def ran(folder: Path, *arguments: object) -> str:
    """What the program prints that is started where the folder is on the path."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    command = [sys.executable, "-m", "trt_layermerge.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=True)
    return done.stdout


def test_commands_have_its_options_and_its_cost(install: Any, tmp_path: Path) -> None:
    folder = install("snails:Slow")
    (folder / "c.toml").write_text('snail-way = "field"\nestimator = "slow"')
    job = [ASSETS / "model.py", "--task", ASSETS / "task.py", "--output", tmp_path / "out", "--method", "layermerge"]
    job += ["--profiles", tmp_path / "profiles", "--config", folder / "c.toml", "--json"]
    assert json.loads(ran(folder, "importance", *job, "--dry-run"))["seconds"] == 2 * 86400
    stages = json.loads(ran(folder, "compress", *job, "--snail-days", "4", "--dry-run"))["stages"]
    assert [stage["seconds"] for stage in stages if stage["stage"] == "importance"] == [2 * 86400]  # half of it pays
    for command in ("importance", "compress", "solve"):
        told = " ".join(ran(folder, command, "--help").split())
        assert "slow, as product, but slow." in told and "slow: how long it takes. [default: 2.0]" in told
        assert "--snail-way [road|field]" in told and "--snail-tired / --no-snail-tired" in told


def test_an_estimator_that_is_none_leaves_no_traceback(install: Any) -> None:
    folder = install("snails:Absent")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        ran(folder, "importance", "--help")
    assert caught.value.returncode == 2 and caught.value.stderr.startswith("error: the estimator snails:Absent")
