"""Fashion-MNIST as a denoising task: which noise is in the image? The same files as those of ``task.py``."""

from __future__ import annotations

from task import MEAN, STD, load
from torch.utils.data import TensorDataset

from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.task import Classification


def images(part: str) -> TensorDataset:
    """``train`` or ``test`` in -1..1, as they are; with their labels, which nothing looks at."""
    pixels, labels = load(part).tensors
    return TensorDataset(pixels * (2 * STD) + (2 * MEAN - 1), labels)


def task(drawn: tuple[int, int] | None = None) -> Denoising:
    """57,952 images to train on, 2,048 of them for calibration, 2,048 held out; 2,048 to test."""
    test = TensorDataset(*(tensor[:2048] for tensor in images("test").tensors))
    split = Classification("Fashion-MNIST", images("train"), test, batch_size=32, held_out=2048, calibration=2048)
    return Denoising(split, drawn=drawn)


def late() -> Denoising:
    """The half of the time steps with less noise, in which images get their details."""
    return task((0, 500))


def early() -> Denoising:
    """The half with more noise, which images begin with."""
    return task((500, 1000))
