"""The Python interface as a notebook meets it; its examples, and those of the page that shows them, are run."""

from __future__ import annotations

import doctest
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trt_layermerge as layermerge
from trt_layermerge import api
from trt_layermerge.errors import IncompatibleError, UsageError
from trt_layermerge.progress import Step

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "tests" / "pipeline" / "assets"

SMALL = {"max_layers": 2, "max_kernel": 5, "calibration": 64, "held_out": 64, "fit_samples": 64, "epochs": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, its weights and a task, where commands and examples are run."""
    from safetensors.torch import save_file

    for name in ("model.py", "task.py"):
        shutil.copy(ASSETS / name, tmp_path / name)
    scope: dict[str, object] = {}
    exec((ASSETS / "model.py").read_text(), scope)
    save_file(scope["model"]().state_dict(), tmp_path / "weights.safetensors")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def untouched_logger() -> Iterator[None]:
    logger = logging.getLogger("trt_layermerge")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_importing_the_package_imports_nothing_and_configures_nothing() -> None:
    code = """
import logging, sys
import trt_layermerge
heavy = ("torch", "onnx", "numpy", "click", "rich")
print([name for name in heavy if name in sys.modules], logging.getLogger().handlers)
print([type(one).__name__ for one in logging.getLogger("trt_layermerge").handlers], "load" in dir(trt_layermerge))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] []\n['NullHandler'] True\n"


def test_every_name_of_the_package_is_a_documented_function_of_its_interface() -> None:
    for name in layermerge.__all__:
        assert getattr(layermerge, name) is getattr(api, name)
        assert getattr(api, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        layermerge.lode  # noqa: B018


def test_the_page_does_what_it_says(folder: Path, untouched_logger: None) -> None:
    found = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False, optionflags=doctest.FAIL_FAST)
    assert found.attempted > 20 and found.failed == 0


def test_the_examples_in_docstrings_do_what_they_say(folder: Path) -> None:
    found = doctest.testmod(api, optionflags=doctest.FAIL_FAST)
    assert found.attempted >= 3 and found.failed == 0


def test_a_callback_is_told_of_every_stage_from_its_beginning_to_its_end(folder: Path) -> None:
    session, steps = layermerge.load("model.py", task="task.py", **SMALL), list[Step]()
    layermerge.profile(session, progress=steps.append)
    layermerge.measure_importance(session, progress=steps.append)
    for stage in ("profile", "importance"):
        own = [step for step in steps if step.stage == stage]
        assert (own[0].done, own[0].finished, own[-1].finished, own[-1].seconds_left) == (0, False, True, 0.0)
        assert [step.finished for step in own].count(True) == 1
        assert [step.done for step in own] == sorted(step.done for step in own) and own[-1].done == own[-1].total
    assert len(layermerge.measure_importance(session)) == steps[-1].total


def test_nothing_is_delivered_of_a_plan_that_is_no_longer_the_job_s(folder: Path) -> None:
    session = layermerge.load("model.py", task="task.py", budget=0.95, finetune=False, **SMALL)
    compressed = layermerge.compress(session)
    assert len(list((folder / "engines" / "job").glob("*.engine*"))) == 0, "nothing is delivered yet"
    other = layermerge.load("model.py", task="task.py", budget=1.0, finetune=False, method="layer-only", **SMALL)
    layermerge.solve(other)
    with pytest.raises(IncompatibleError, match="is another plan than that of this network"):
        layermerge.deliver(compressed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimatr": "fit"}, "did you mean 'estimator'"),
        ({"estimator": "gate"}, "did you mean 'gates'"),
        ({"method": "dept"}, "did you mean 'depth'"),
        ({"budget": 0.5, "speedup": 2.0}, "say the same thing"),
        ({"threads": 0}, "threads must be 1"),
        ({"gates_penalty": -1.0, "recipe": "deflt"}, "."),
    ],
)
def test_what_cannot_be_is_an_error_of_ours(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        layermerge.load("model.py", **settings)


def test_settings_are_the_options_of_the_whole_job() -> None:
    from dataclasses import fields

    from trt_layermerge.cli.commands.compress import command
    from trt_layermerge.importance.estimators.registry import estimators
    from trt_layermerge.pipeline.settings import JobSettings, builder_options, setting_key

    owned = {option.key for _, _, option, _ in builder_options()}
    owned |= {setting_key(kind, field.name) for kind in estimators().values() for field in fields(kind)}
    options = {one.name for one in command.params if one.expose_value} - {"model", "as_json", "dry_run", "explore"}
    of_profile = {"again", "interval", "builds"}
    assert options - owned == set(JobSettings.__annotations__) - of_profile
