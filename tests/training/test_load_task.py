from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trt_layermerge.errors import TaskError
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

GOOD = """
import torch
from torch.utils.data import TensorDataset
from trt_layermerge.training.task import Classification

def task(held_out=2):
    data = TensorDataset(torch.zeros(8, 1), torch.zeros(8, dtype=torch.long))
    return Classification(NAME, data, data, held_out=held_out)

def bad_split():
    return task(held_out=9)

NAME = "good"
"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:  # first, for pytest makes it with modules of its own
    path, modules = list(sys.path), set(sys.modules)
    yield
    assert sys.path == path
    assert {name for name in set(sys.modules) - modules if not name.startswith("_task_")} == set()
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, text: str, name: str = "task.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def refused(path: Path) -> TaskError:
    modules = set(sys.modules)
    with pytest.raises(TaskError) as caught:
        load_task(path)
    assert caught.value.exit_code == 3
    assert set(sys.modules) == modules
    return caught.value


def test_a_file_gives_its_task(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD + "\nother = task\n")
    for path in (file, Path(f"{file}:task"), Path(f"{file}:other")):
        task = load_task(path)
        assert isinstance(task, Classification) and task.name == "good"


def test_siblings_import_and_never_serve_for_another_folder(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, f"NAME = {name!r}", "sibling.py")
        file = write(tmp_path / name, GOOD + "\nfrom sibling import NAME\n")
        assert load_task(file).name == name


def test_a_relative_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_task(Path("task.py")).name == "good"


def test_a_loaded_class_finds_its_module(tmp_path: Path) -> None:
    dataclass = "from dataclasses import dataclass\nfrom __future__ import annotations\n"
    lines = "\n".join(reversed(dataclass.splitlines())) + "\n@dataclass\nclass Options:\n    size: int = 1\n"
    file = write(tmp_path, lines + GOOD + "\nNAME = Options.__module__\n")
    name = load_task(file).name
    assert hasattr(sys.modules[name], "Options")


def test_no_such_file(tmp_path: Path) -> None:
    assert str(tmp_path / "absent.py") in refused(tmp_path / "absent.py:task").message


def test_not_a_python_file(tmp_path: Path) -> None:
    assert ".py" in str(refused(write(tmp_path, GOOD, "task.txt")))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("x = 1\ndef task(:\n", 2, "SyntaxError"),
        ("\nimport no_such_module_anywhere\n", 2, "No module named 'no_such_module_anywhere'"),
        ("import sys\nsys.exit('go away')\n", 2, "go away"),
        ("def task():\n    return open('/no/such/data')\n", 2, "FileNotFoundError"),
        ("def task():\n    return inner()\n\ndef inner():\n    return [][1]\n", 5, "IndexError"),
        (GOOD.replace("held_out=2", "held_out=9"), 8, "9 of 8"),
    ],
)
def test_code_that_raises_is_told_by_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = write(tmp_path, text)
    error = refused(file)
    assert f"({file}, line {line})" in error.message and words in error.message
    assert error.__cause__ is not None


def test_code_of_a_sibling_that_raises_is_told_by_the_siblings_line(tmp_path: Path) -> None:
    sibling = write(tmp_path, "import json\njson.loads('{')\n", "sibling.py")
    file = write(tmp_path, "from sibling import task\n")
    message = refused(file).message
    assert "JSONDecodeError" in message and message.endswith(f"({sibling}, line 2)")


def test_a_misspelt_function_gets_a_suggestion(tmp_path: Path) -> None:
    error = refused(Path(f"{write(tmp_path, GOOD)}:tassk"))
    assert "no function 'tassk'" in error.message
    assert error.hint == "did you mean task.py:task?"


def test_a_name_that_is_no_function(tmp_path: Path) -> None:
    assert "no function 'NAME'" in refused(Path(f"{write(tmp_path, GOOD)}:NAME")).message


def test_an_incomplete_task_names_what_it_lacks(tmp_path: Path) -> None:
    text = "class Half:\n  name = 'half'\n  steps_per_epoch = 3\n  loss = 5\n  def metric(self): ...\ntask = Half\n"
    message = refused(write(tmp_path, text)).message
    assert "Half" in message
    assert message.endswith("it lacks loss, training_batches, calibration_batches, held_out_batches, test_batches")


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "SystemExit(0)", "GeneratorExit", "BaseException('odd')"])
def test_nothing_that_a_file_raises_ends_the_command_as_if_all_were_well(tmp_path: Path, raised: str) -> None:
    file = write(tmp_path, f"def task():\n    raise {raised}\n")
    assert f"({file}, line 2)" in refused(file).message
