"""Named tasks, on folders that the tests make: a few images by class, and CIFAR-10's binary files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trt_layermerge.errors import RuntimeNotAvailableError, TaskError
from trt_layermerge.training import datasets
from trt_layermerge.training.datasets import CIFAR_MEAN, CIFAR_STD, NAMED, CropAndFlip, Normalise, Settings, cifar10
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.load_task import load_task
from trt_layermerge.training.task import Classification

pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images a class to train on, two to test: red ones and blue ones, of several sizes and formats."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 10), ("val", 2)):
        for channel, name in ((0, "red"), (2, "blue")):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 60, (20 + number, 30, 3), np.uint8)
                pixels[:, :, channel] += 180
                suffix = "png" if number % 2 else "jpg"
                Image.fromarray(pixels).save(folder / part / name / f"{number}.{suffix}")
    return folder


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in each of the five files, two in that of the tests; image n is grey of brightness 10 n."""
    folder = tmp_path_factory.mktemp("cifar")
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir()
    numbers = iter(range(22))
    for name, count in [*((f"data_batch_{number}.bin", 4) for number in range(1, 6)), ("test_batch.bin", 2)]:
        records = b""
        for number in [next(numbers) for _ in range(count)]:
            records += bytes([number % 10]) + bytes([10 * number]) * 3072
        (inner / name).write_bytes(records)
    return folder


def named(text: str, **settings: object) -> Classification:
    task = load_task(Path(text), Settings(**settings))
    assert isinstance(task, Classification)
    return task


def same(a: list, b: list) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_images(images: Path, workers: int) -> None:
    task = replace(named(f"imagefolder:{images}", size=16, batch_size=4), workers=workers)
    assert (task.name, task.held_out, task.steps_per_epoch) == (f"{images.name} 16x16", 2, 4)
    epoch = list(task.training_batches(seed=1, epoch=0))
    assert [batch.shape for batch, _ in epoch] == [(4, 3, 16, 16)] * 4
    for batch, labels in [*epoch, *task.test_batches()]:
        blue = batch[:, 2].mean((1, 2)) > batch[:, 0].mean((1, 2))
        assert torch.equal(blue, labels == 0)  # classes are numbered by name
    assert same(epoch[2:], list(task.training_batches(seed=1, epoch=0, first_step=2)))
    assert not same(epoch, list(task.training_batches(seed=2, epoch=0)))
    assert same(list(task.test_batches()), list(task.test_batches()))


def test_an_image_is_cropped_anew_in_every_epoch(images: Path) -> None:
    task = named(f"imagefolder:{images}", size=16, batch_size=18)
    first, second = (
        next(task.training_batches(seed=1, epoch=epoch))[0].flatten(1).sum(1).sort()[0] for epoch in (0, 1)
    )
    assert not torch.allclose(first, second)


def test_members_of_a_team_load_their_own_images(images: Path) -> None:
    task = named(f"imagefolder:{images}", size=16, batch_size=6)
    whole = next(task.training_batches(seed=1, epoch=0))[0]
    parts = [next(task.shared(rank, 2).training_batches(seed=1, epoch=0))[0] for rank in (0, 1)]
    assert torch.equal(torch.stack(parts, 1).flatten(0, 1), whole)


def test_what_the_recipe_says_of_the_data_holds_for_named_tasks(images: Path, cifar: Path) -> None:
    for task in (named(f"imagefolder:{images}"), named(f"cifar10:{cifar}")):
        assert task.batch_size in (128, 256) and task.label_smoothing == 0
    for text in (f"imagefolder:{images}", f"cifar10:{cifar}"):
        task = named(text, batch_size=7, label_smoothing=0.2)
        assert (task.batch_size, task.label_smoothing) == (7, 0.2)
    assert next(iter(named(f"imagefolder:{images}").test_batches()))[0].shape[1:] == (3, 224, 224)


@pytest.mark.parametrize("name", NAMED)
def test_no_folder_is_not_the_current_one(name: str) -> None:
    with pytest.raises(TaskError, match=f"{name}: names no folder") as caught:
        load_task(Path(f"{name}:"))
    assert f"{name}:. for the folder" in str(caught.value)


def grey(number: int) -> Tensor:
    return (torch.full((3,), 10 * number / 255) - torch.tensor(CIFAR_MEAN)) / torch.tensor(CIFAR_STD)


def test_cifar_is_read_from_its_binary_version(cifar: Path) -> None:
    for folder in (cifar, cifar / "cifar-10-batches-bin"):
        task = named(f"cifar10:{folder}", batch_size=3)
        assert (task.held_out, task.steps_per_epoch) == (2, 6)
        (images, labels), = task.test_batches()  # fmt: skip
        assert labels.tolist() == [0, 1] and images.shape == (2, 3, 32, 32)
        for image, number in zip(images, (20, 21), strict=True):
            torch.testing.assert_close(image, grey(number)[:, None, None].expand(3, 32, 32))
        seen = {int(label) for _, labels in task.training_batches(seed=0, epoch=0) for label in labels}
        assert seen <= set(range(10)) and len(seen) >= 8


def test_the_channels_of_an_image_are_planes(tmp_path: Path, cifar: Path) -> None:
    for file in (cifar / "cifar-10-batches-bin").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    pixels = np.arange(3072) % 251
    (tmp_path / "test_batch.bin").write_bytes(bytes([3]) + pixels.astype(np.uint8).tobytes())
    images, labels = named(f"cifar10:{tmp_path}").test.tensors
    assert labels.tolist() == [3]
    assert images[0, 1, 2, 5] == (1024 + 2 * 32 + 5) % 251


def test_training_images_are_shifted_with_black_behind_them_and_flipped() -> None:
    normalise = Normalise((0.5, 0.2, 0.3), (0.2, 0.3, 0.4))
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, 4, 3] = 255
    batch = normalise(image).expand(64, 3, 8, 8)
    shifted = CropAndFlip(2, normalise.black)(batch, torch.Generator().manual_seed(0))
    assert shifted.shape == batch.shape
    white = (shifted - normalise.black).abs() > 1e-6
    assert (white.sum((1, 2, 3)) == 3).all()  # one pixel, in all channels, wherever it went
    places = {tuple(place) for place in white[:, 0].nonzero()[:, 1:].tolist()}
    assert {row for row, _ in places} == set(range(2, 7))
    assert {column for _, column in places} == set(range(1, 7))
    flipped = CropAndFlip(0, normalise.black)(batch, torch.Generator().manual_seed(0))
    assert {int(column) for *_, column in flipped[:, 0].gt(0).nonzero()} == {3, 4}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: None, "cannot read .*data_batch_1.bin(?s:.)*binary version"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b"short"), "5 bytes are not a number of whole images"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b""), "0 bytes are not"),
        (lambda f: (f / "data_batch_1.bin").write_bytes(bytes([77]) + bytes(3072)), "it has the label 77"),
    ],
)
def test_what_is_not_cifar_is_refused(tmp_path: Path, make, words: str) -> None:
    make(tmp_path)
    with pytest.raises(TaskError, match=words):
        cifar10(tmp_path, Settings())


def test_cifar_of_another_size_is_refused(cifar: Path) -> None:
    with pytest.raises(TaskError, match=r"32x32.*64x64"):
        named(f"cifar10:{cifar}", size=64)


def test_a_folder_without_images_is_refused(tmp_path: Path, images: Path) -> None:
    with pytest.raises(TaskError, match=r"holds no images by class(?s:.)*train/CLASS/IMAGE"):
        named(f"imagefolder:{tmp_path}")
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / f"only-{part}").mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / part / f"only-{part}" / "a.png")
    with pytest.raises(TaskError, match="other classes: only-train, only-val"):
        named(f"imagefolder:{tmp_path}")


def test_without_torchvision_it_is_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.datasets", None)
    with pytest.raises(RuntimeNotAvailableError, match=r"'\.\[zoo\]'"):
        named(f"imagefolder:{images}")


def test_denoising_cifar(cifar: Path) -> None:
    task = load_task(Path(f"denoise-cifar10:{cifar}"), Settings(batch_size=6))
    assert isinstance(task, Denoising) and task.steps_per_epoch == 3
    for (noisy, times), noise in task.training_batches(seed=0, epoch=0):
        left = task.signal[times].view(-1, 1, 1, 1)
        image = (noisy - (1 - left).sqrt() * noise) / left.sqrt()
        # The images again: grey ones, in -1..1; where hardly anything of them is left, digits are lost.
        sure = times < 500
        assert (image[sure].amax((1, 2, 3)) - image[sure].amin((1, 2, 3)) < 1e-3).all()
        assert (image[sure].abs() <= 1.001).all()


def test_as_much_is_held_out_as_importance_trains_on() -> None:
    """Of small data sets a tenth; of ImageNet the 4 % that the papers train and evaluate every choice with."""
    assert [datasets._held_out(images) for images in (19, 50_000, 60_000)] == [1, 5000, 5000]
    held_out = datasets._held_out(1_281_167)
    assert 0.04 * (1_281_167 - held_out) <= held_out <= 52_000
