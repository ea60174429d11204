"""A hundred made images in the two layouts that the papers' data sets have, as tasks: to try the whole path quickly.

Colours tell the classes apart, so that something can be learnt; figures that come of it say nothing of the papers'.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from trt_layermerge.network.source import load_source
from trt_layermerge.training.datasets import Settings, denoise_cifar10, image_folder
from trt_layermerge.training.denoising import Denoising
from trt_layermerge.training.task import Classification

FOLDER = Path("build/papers")
CLASSES, TRAIN, TEST, SIZE = 4, 80, 20, 32
BATCH, FEW = 8, 2


def write_images(folder: Path) -> Path:
    """``train/CLASS/IMAGE.png`` and ``val/CLASS/IMAGE.png``, as ImageNet is usually unpacked; once for all jobs."""
    draw = np.random.default_rng(0)
    with _once(folder) as new:
        for part, count in (("train", TRAIN), ("val", TEST)) if new else ():
            for number in range(count):
                place = new / part / f"class{number % CLASSES}" / f"{number}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(_pixels(draw, number % CLASSES)).save(place)
    return folder


def write_cifar10(folder: Path) -> Path:
    """Six files of CIFAR-10's binary version, likewise."""
    draw = np.random.default_rng(0)
    files = {f"data_batch_{number}.bin": TRAIN // 5 for number in range(1, 6)} | {"test_batch.bin": TEST}
    with _once(folder) as new:
        for name, count in files.items() if new else ():
            images = [_pixels(draw, number % CLASSES).transpose(2, 0, 1) for number in range(count)]
            records = [bytes([number % CLASSES]) + image.tobytes() for number, image in enumerate(images)]
            (new / name).write_bytes(b"".join(records))
    return folder


def write_weights(spec: str, path: Path) -> None:
    """Random weights of a network, for who has no trained ones: in a file, so that a job that is stopped goes on."""
    if path.exists():
        return
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(load_source(spec).module.state_dict(), new)
    new.rename(path)


@contextmanager
def _once(folder: Path) -> Iterator[Path | None]:
    """A folder to fill, which takes its name when it is full; None where another job has filled it."""
    if folder.is_dir():
        yield None
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent))
    yield new
    try:
        new.rename(folder)
    except OSError:  # another job was faster
        shutil.rmtree(new)


def images() -> Classification:
    """The first layout, 32x32, for ``--input 3x32x32``."""
    return replace(image_folder(write_images(FOLDER / "images"), Settings(SIZE, BATCH)), workers=0)


def large_images() -> Classification:
    """The first layout, enlarged to 224x224, two at once: for plans, whose latencies are of that size."""
    return replace(image_folder(write_images(FOLDER / "images"), Settings(224, FEW)), workers=0)


def noisy_images() -> Denoising:
    """The second, with noise, two at once, for DDPM."""
    return denoise_cifar10(write_cifar10(FOLDER / "cifar10"), Settings(SIZE, FEW))


def _pixels(draw: np.random.Generator, kind: int) -> np.ndarray:
    """Noise around the colour of a class, ``uint8 [SIZE, SIZE, 3]``."""
    colour = np.array([(kind % 2) * 120, (kind // 2) * 120, 60])
    return (colour + draw.integers(0, 100, (SIZE, SIZE, 3))).astype(np.uint8)
