"""Tasks with a name, for data that lies in a folder: ``imagefolder:FOLDER`` and the others in ``NAMED``.

Images of a folder are read and transformed by torchvision, with its own classification references' settings. CIFAR-10
is read from its binary version, for nothing is unpickled here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from trt_layermerge.errors import RuntimeNotAvailableError, TaskError
from trt_layermerge.extras import install_hint
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.task import Classification, Task
from trt_layermerge.training.unlabelled.comparing import Comparing
from trt_layermerge.training.unlabelled.load_unlabelled import unlabelled

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of training images in 0..1, by channel."""

UNLABELLED = "images"
"""Name of the task without labels; what comes behind it may be a file, too."""

CIFAR_RECORD = 1 + 3 * 32 * 32
"""Bytes of an image of the binary version: its label, then its red, green and blue rows."""


@dataclass(frozen=True)
class Settings:
    """What the job says of a task that is named.

    Args:
        size: Height and width of the images that the network takes; None takes the data's usual.
        batch_size: Images of one step; None takes the task's own.
        label_smoothing: As in ``torch.nn.functional.cross_entropy``.
        comparing: How samples without labels are prepared, and outputs compared.
    """

    size: int | None = None
    batch_size: int | None = None
    label_smoothing: float = 0.0
    comparing: Comparing = field(default_factory=Comparing)


def image_folder(folder: Path, settings: Settings) -> Classification:
    """A folder with ``train/CLASS/IMAGE`` and ``val/CLASS/IMAGE``, as ImageNet is usually unpacked.

    Training crops between 8 and 100 % of an image's area and flips it; elsewhere the middle of the image is taken,
    after its shorter side was brought to 8/7 of the size.

    Raises:
        TaskError: The folder is not like that.
        RuntimeNotAvailableError: torchvision is not installed.
    """
    try:
        from torchvision.datasets import ImageFolder
        from torchvision.transforms import v2
    except ImportError as error:
        raise RuntimeNotAvailableError(
            "images of a folder are read with torchvision, which is not installed",
            hint=install_hint("zoo", "torchvision"),
        ) from error
    size = settings.size or 224
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    try:
        train, test = ImageFolder(folder / "train"), ImageFolder(folder / "val")
    except OSError as error:
        raise TaskError(
            f"{folder} holds no images by class: {error}", hint="it needs train/CLASS/IMAGE and val/CLASS/IMAGE"
        ) from error
    if train.classes != test.classes:
        differing = sorted(set(train.classes) ^ set(test.classes))
        raise TaskError(f"{folder}: train and val have other classes: {', '.join(differing[:5])}")
    return Classification(
        f"{folder.resolve().name} {size}x{size}",  # of another size it is another task
        train,
        test,
        batch_size=settings.batch_size or 256,
        held_out=_held_out(len(train)),
        transform=v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size), *last]),
        random_transform=v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *last]),
        label_smoothing=settings.label_smoothing,
        workers=min(8, os.cpu_count() or 1),
    )


def cifar10(folder: Path, settings: Settings) -> Classification:
    """CIFAR-10, normalised; training pads images by four pixels, crops and flips them (He et al., arXiv 1512.03385).

    Raises:
        TaskError: Files are not there, or not of the binary version.
    """
    normalise = Normalise(CIFAR_MEAN, CIFAR_STD)
    return _cifar10("CIFAR-10", folder, settings, normalise, CropAndFlip(4, normalise.black))


def denoise_cifar10(folder: Path, settings: Settings) -> Denoising:
    """CIFAR-10 in -1..1, flipped, for DDPM.

    Raises:
        TaskError: As ``cifar10``.
    """
    normalise = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return Denoising(_cifar10("CIFAR-10", folder, settings, normalise, CropAndFlip(0, normalise.black)))


NAMED: dict[str, Callable[[Path, Settings], Task]] = {
    "imagefolder": image_folder,
    "cifar10": cifar10,
    "denoise-cifar10": denoise_cifar10,
    UNLABELLED: lambda place, settings: unlabelled(place, settings.comparing),
}


class Normalise:
    """Bytes ``[channels, height, width]`` to real numbers of mean 0 and deviation 1 in each channel.

    Attributes:
        black: What a black pixel becomes, ``[channels, 1, 1]``.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self.black = -self.mean / self.std

    def __call__(self, image: Tensor) -> Tensor:
        """One image."""
        return (image / 255 - self.mean) / self.std


class CropAndFlip:
    """Shifts each image of a batch by up to so many pixels each way, black behind it, and flips every other one."""

    def __init__(self, pixels: int, black: Tensor) -> None:
        self.pixels, self.black = pixels, black

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A batch ``[batch, channels, height, width]``, all randomness from the generator."""
        count, _, height, width = images.shape
        flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flip, images.flip(3), images)
        if not self.pixels:
            return images
        padded = F.pad(images - self.black, [self.pixels] * 4) + self.black
        top, left = torch.randint(0, 2 * self.pixels + 1, (2, count, 1), generator=generator)
        rows, columns = top + torch.arange(height), left + torch.arange(width)
        cropped = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return cropped.permute(0, 3, 1, 2)


def _cifar10(name: str, folder: Path, settings: Settings, normalise: Normalise, augment: CropAndFlip) -> Classification:
    if settings.size not in (None, 32):
        raise TaskError(f"images of CIFAR-10 are 32x32, and the network is to take {settings.size}x{settings.size}")
    inner = folder / "cifar-10-batches-bin"
    place = inner if inner.is_dir() else folder
    train = [_records(place / f"data_batch_{number}.bin") for number in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    return Classification(
        name,
        TensorDataset(images, labels),
        TensorDataset(*_records(place / "test_batch.bin")),
        batch_size=settings.batch_size or 128,
        held_out=_held_out(len(images)),
        transform=normalise,
        augment=augment,
        label_smoothing=settings.label_smoothing,
    )


def _records(path: Path) -> tuple[Tensor, Tensor]:
    """Images ``[n, 3, 32, 32]`` as bytes, and labels ``[n]``, of one file of the binary version."""
    try:
        data: Any = np.fromfile(path, np.uint8)
    except OSError as error:
        raise TaskError(
            f"cannot read {path}: {error.strerror}",
            hint="CIFAR-10 is read from its binary version, cifar-10-binary.tar.gz: the Python version is pickled",
        ) from error
    if not len(data) or len(data) % CIFAR_RECORD:
        raise TaskError(f"{path} is no file of CIFAR-10: {len(data)} bytes are not a number of whole images")
    records = torch.from_numpy(data.reshape(-1, CIFAR_RECORD))
    labels = records[:, 0].long()
    if labels.max() > 9:
        raise TaskError(f"{path} is no file of CIFAR-10: it has the label {int(labels.max())}")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def _held_out(images: int) -> int:
    """A tenth, and 5,000 at most; of large data sets 4 %, as the papers train and evaluate every choice with."""
    return min(images // 10, max(5000, images // 25))
