from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from trt_layermerge.errors import Caution
from trt_layermerge.training.checked_task import CheckedTask, content_of
from trt_layermerge.training.task import Classification
from trt_layermerge.training.task_identity import identity_of, source_digest


def data(count: int = 24, *, seed: int = 0, swapped: bool = False) -> TensorDataset:
    images = torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % 2
    return TensorDataset(images, 1 - labels if swapped else labels)


def made(**changed: Any) -> Classification:
    return replace(Classification("it", data(), data(8, seed=1), batch_size=4, held_out=8, calibration=8), **changed)


def test_it_says_the_same_of_the_same_task() -> None:
    assert identity_of(made()) == identity_of(made()) and len(identity_of(made())) == 16


@pytest.mark.parametrize(
    "changed",
    [
        {"train": data(swapped=True)},
        {"train": data(seed=2)},
        {"train": data(32)},
        {"batch_size": 8},
        {"transform": lambda image: image + 1},
    ],
)
def test_it_says_another_of_another(changed: dict[str, Any]) -> None:
    assert identity_of(made(**changed)) != identity_of(made())


def test_augmentation_and_names_do_not_matter() -> None:
    flipped = made(augment=lambda images, generator: images.flip(-1), random_transform=torch.relu, name="other")
    assert identity_of(flipped) == identity_of(made())


def test_data_in_no_order_is_said_and_left_out() -> None:
    class Changing(Classification):
        def calibration_batches(self) -> Iterator[Any]:
            yield torch.rand(4, 2, 4, 4), torch.zeros(4)

    def changing() -> Classification:
        return Changing("it", data(), data(), held_out=8)

    with pytest.warns(Caution, match="task 'it': calibration_batches yields other data each time it is read"):
        assert identity_of(changing()) == identity_of(changing())


def test_the_source_is_part_of_it_and_raw_tasks_have_none() -> None:
    assert content_of(made()) == "" != content_of(CheckedTask(made()))
    assert content_of(CheckedTask(made(), source="a")) != content_of(CheckedTask(made(), source="b"))


FILES = {
    "task.py": "import numpy\nfrom labels import names\ndef task():\n    import tools.reading\n",
    "labels.py": "import more\nnames = ['cat', 'dog']\n",
    "more.py": "",
    "tools/__init__.py": "",
    "tools/reading.py": "from . import deep\n",
    "tools/deep.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {**FILES, "unread.py": ""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_it_imports_counts(folder: Path, name: str) -> None:
    before = source_digest(folder / "task.py")
    (folder / "unread.py").write_text("x = 1\n")
    assert source_digest(folder / "task.py") == before
    (folder / name).write_text(FILES[name] + "x = 1\n")
    assert source_digest(folder / "task.py") != before


def test_where_it_lies_does_not_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before, elsewhere = source_digest(folder / "task.py"), tmp_path_factory.mktemp("other") / "deep"
    folder.rename(elsewhere)
    assert source_digest(elsewhere / "task.py") == before
    (elsewhere / "labels.py").write_text("not Python (")
    source_digest(elsewhere / "task.py")
